"""Log lines: text for people on a terminal, JSON elsewhere."""

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Literal

from pgqueue.log_stream import handler_for
from pgqueue.masking import cut, mask
from pgqueue.printable import safe, safe_json

LONGEST = 65_536
"""Characters of a message, of a stack trace, or of an additional value that are logged."""


DEEPEST = 10
"""Levels of lists and dicts inside each other that are logged."""


_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra=`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _bounded(text: str, keep: Literal["start", "end"] = "start") -> str:
    return mask(cut(text, LONGEST, keep))


def _masked_within(value: Any, levels: int = DEEPEST) -> Any:
    match value:
        case str():
            return _bounded(value)
        case dict() | list() | tuple() | set() | frozenset() if levels == 0:
            return "…"
        case dict():
            return {
                _bounded(_spoken(key)): _masked_within(inner, levels - 1)
                for key, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_masked_within(inner, levels - 1) for inner in value]
        case None | bool() | int() | float():
            return value
    return _bounded(_spoken(value))


def _spoken(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - it is a handler's own __str__, and what it logs must not end what logs it
        return f"(its text cannot be read: {type(error).__name__})"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or a __str__ that fails
        return f"{_spoken(record.msg)} (its arguments cannot be shown: {type(error).__name__})"


_BREAK = f"\n{token_hex(8)}\n"
"""Stands for a line break of the program's own while the message is made. Nothing foreign can know
it."""


def _message_lines(record: logging.LogRecord) -> list[str]:
    """The message as the lines that the program wrote. A line break in what was put in by an
    argument starts no line."""
    if not record.args or not isinstance(record.msg, str) or "\n" not in record.msg:
        return [_bounded(_message(record))]
    marked = logging.makeLogRecord(vars(record) | {"msg": record.msg.replace("\n", _BREAK)})
    return _bounded(_message(marked)).split(_BREAK)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, event, message, and what the caller
    added."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, Any] = {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": "log",
            "message": _bounded(_message(record)),
        }
        for key, value in fields(record).items():
            entry[key] = _masked_within(value)
        if record.exc_info:
            entry["stack"] = _bounded(self.formatException(record.exc_info), "end")
        return safe_json(json.dumps(entry, ensure_ascii=False))


class HumanFormatter(logging.Formatter):
    """A line for people: time, level when it is not info, message. Only what begins at the margin
    is an entry of the log: the further lines of a message or a stack trace are set in."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        first, *more = _message_lines(record)
        if record.exc_info:
            more += _bounded(self.formatException(record.exc_info), "end").split("\n")
        return "\n".join([f"{moment} {level}{safe(first)}", *(f"  {safe(line)}" for line in more)])


def configure_logging(
    level: str = "info",
    style: Literal["auto", "human", "json"] = "auto",
    quiet: Iterable[str] = ("psycopg", "asyncio"),
) -> None:
    """Send every log line of the process to standard error, masked.

    auto: for people when standard error is a terminal. quiet: loggers that log no more than
    warnings.
    """
    human = style == "human" or (style == "auto" and sys.stderr.isatty())
    handler = handler_for(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in quiet:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
