"""Reads what a row may hold although no program can: numbers without end, thousands of levels,
times outside of the calendar. Nothing here raises: one such row must not hide the others."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

MOST_LEVELS = 200
"""Of arrays and objects in each other; more is shown as text."""

SHOWN_CHARACTERS = 1_000

EARLIEST, LATEST = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LONG_NUMBER = re.compile(rb"\d{19}")


class AnyTime(Loader):
    """timestamptz; infinity and what lies outside of the calendar is its first or last moment."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        micros = int.from_bytes(bytes(data), "big", signed=True)
        try:
            return _EPOCH + timedelta(microseconds=micros)
        except OverflowError:
            return LATEST if micros > 0 else EARLIEST


class AnyJson(Loader):
    """jsonb, as `decoded`."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        return decoded(bytes(data)[1:])


def reading(context: AdaptContext) -> None:
    """A connection or a cursor that reads so."""
    if context.adapters is not None:
        context.adapters.register_loader("jsonb", AnyJson)
        context.adapters.register_loader("timestamptz", AnyTime)


def decoded(data: bytes) -> Any:
    """The value of a JSON text, which can be encoded again. What cannot be is `{"unreadable": why,
    "text": its beginning}`."""
    try:
        value = msgspec.json.decode(data)
        if _LONG_NUMBER.search(data):
            value = _tamed(value, MOST_LEVELS)
        elif data.count(b"[") + data.count(b"{") > MOST_LEVELS:
            _tamed(value, MOST_LEVELS)
    except (ValueError, OverflowError, RecursionError) as error:
        why = f"more than {MOST_LEVELS} levels" if isinstance(error, RecursionError) else str(error)
        return {
            "unreadable": why,
            "text": data[: SHOWN_CHARACTERS * 4].decode(errors="replace")[:SHOWN_CHARACTERS],
        }
    return value


def _tamed(value: Any, levels: int) -> Any:
    """The same with whole numbers that JSON's readers do not take as the nearest float."""
    if levels < 0:
        raise RecursionError
    match value:
        case dict():
            return {key: _tamed(one, levels - 1) for key, one in value.items()}
        case list():
            return [_tamed(one, levels - 1) for one in value]
        case int() if not -(2**63) <= value < 2**64:
            return float(value)
    return value


def entries(history: Any) -> list[dict[str, Any]]:
    """The entries of a history; none when the column holds something else."""
    if not isinstance(history, list):
        return []
    return [
        one
        if isinstance(one, dict)
        else {"event": "unreadable", "error": f"{one!r}"[:SHOWN_CHARACTERS]}
        for one in history
    ]
