"""Whatever stands in a row is read, and can be written again."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pgqueue.database.loaders import EARLIEST, LATEST, AnyTime, decoded, entries


@pytest.mark.parametrize(
    "value", [None, True, 7, -(2**63), 2**64 - 1, 0.5, 1e300, "ü", [], {}, {"a": [1, {"b": None}]}]
)
def test_what_can_be_read_is_read_as_it_is(value: Any) -> None:
    assert decoded(msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 5_000,
        "-1" + "0" * 400,
        '{"n": [1' + "0" * 350 + ".5]}",
        "[" * 202 + "]" * 202,
        "[" * 3_000 + "]" * 3_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_what_no_program_can_read_is_marked_and_shown_in_part(text: str) -> None:
    value = decoded(text.encode())
    assert list(value) == ["unreadable", "text"]
    assert text.startswith(value["text"])
    assert 0 < len(value["text"]) <= 1_000
    json.loads(msgspec.json.encode(value))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300])
def test_a_whole_number_that_is_too_long_is_the_nearest_float(number: int) -> None:
    assert decoded(f'{{"n": [{number}]}}'.encode()) == {"n": [float(number)]}
    assert msgspec.json.encode(decoded(f"[{number}]".encode()))


def test_two_hundred_levels_are_read() -> None:
    text = "[" * 200 + "]" * 200
    assert msgspec.json.encode(decoded(text.encode())).decode() == text


@pytest.mark.parametrize(
    ("micros", "moment"),
    [
        (0, datetime(2000, 1, 1, tzinfo=UTC)),
        (-1, datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (2**63 - 1, LATEST),
        (-(2**63), EARLIEST),
        (400_000_000_000_000_000, LATEST),
        (-100_000_000_000_000_000, EARLIEST),
    ],
)
def test_a_time_outside_of_the_calendar_is_its_edge(micros: int, moment: datetime) -> None:
    assert AnyTime(1184).load(micros.to_bytes(8, "big", signed=True)) == moment


def test_entries_of_a_history_are_objects() -> None:
    assert entries({"a": 1}) == entries(None) == entries("x") == []
    assert entries([{"attempt": 1}, 7]) == [{"attempt": 1}, {"event": "unreadable", "error": "7"}]
