"""Logs: lines for people on a terminal, JSON elsewhere; and the place where addresses and secrets leave a text."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Literal

from pgqueue.log_stream import handler_for
from pgqueue.printable import safe, safe_json
from pgqueue.secrecy import hide

# Every pattern takes a time in proportion to the text, whatever the text: a worker stands still meanwhile, the thread of its
# leases too. So what is repeated is counted, or cannot be split in two ways, or is taken in by the match as far as it was read.
ADDRESS = re.compile(r"""[^\s<>"(),:;\[\]@\\]{1,64}@[^\s<>"'(),:;\[\]@=/\\]+\.[^\s<>"'(),:;\[\]@=/\\.]+""")
_BEFORE_ADDRESS = re.compile(r"""^(.*[='/])(?=[^='/]+@)""")
_ENCODED_ADDRESS = re.compile(r"([\w.+-]{1,64})%40((?:[\w-]+\.)+\w+)", re.IGNORECASE)
# To the last @ before a slash: who wrote one into a password meant it to be part of that.
_URL_PASSWORD = re.compile(r"(\w://[^\s:/@]*+):([^\s@]*+)(@(?:[^\s@/]*+@)*(?=[^\s/@]))?")
_QUOTE = r"""(?:\\{0,15}+['"]|%2[27])"""
_IS = rf"{_QUOTE}?\s*(?:[=:]|%3[AD])\s*"
_SECRET = re.compile(
    r"(?i)(pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|private)[-_]?key)"
    rf"({_IS})(?:({_QUOTE})(?:(?!\3)(?:\\.|[^\n]))++|[^\s'\",;&]+)"
)
_SECRETS = re.compile(rf"(?i)(tokens{_IS})(?:\([^)]{{1,65536}}+\)?|\[[^\]]{{1,65536}}+\]?|[^\s;&]+?(?=,?(?:[\s;&]|$)))")
_BEARER = re.compile(r"(?i)\b(bearer|authorization['\"]?\s*[=:]\s*['\"]?basic)(?:\s+|%20)[^\s'\",;&]+")
HALF = 4_096
"""Characters left out where a text is cut, when no space or line end comes sooner."""

LONGEST = 65_536
"""Characters of a message, of a stack trace, or of a value beside them that are logged."""

DEEPEST = 10
"""Levels of lists and dicts inside each other that are logged."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def mask_address(address: str) -> str:
    """`u***@example.com`; a local part of one or two characters disappears altogether. Masking again changes nothing."""
    local, _, domain = address.rpartition("@")
    return f"{local[0]}***@{domain}" if len(local) > 2 and local != "***" else f"***@{domain}"


def mask(text: str) -> str:
    """The text without a whole e-mail address, without a secret of this process, and without what looks like one: the password
    of a URL, a `password=...`."""
    text = hide(text)
    if "://" in text:
        text = _URL_PASSWORD.sub(_without_password, text)
    if "@" in text:
        text = ADDRESS.sub(_masked, text)
    if "%40" in text:
        text = _ENCODED_ADDRESS.sub(r"***%40\2", text)
    if "=" in text or ":" in text or "%3" in text:
        text = _SECRETS.sub(r"\1***", _SECRET.sub(r"\1\2\3***", text))
    return _BEARER.sub(r"\1 ***", text)


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:***@" if found[3] else found[0]


def _masked(found: re.Match[str]) -> str:
    # What stands before the address as in "to=ana@example.com" is kept; a local part may itself hold or end in such a character.
    lead = _BEFORE_ADDRESS.match(found[0])
    before = lead[1] if lead else ""
    return before + mask_address(found[0][len(before) :])


def clean(text: str, length: int, *, keep: Literal["start", "end"] = "start") -> str:
    """The text as it may be stored or logged: no NUL, no lone surrogates, masked, at most `length` characters."""
    text = mask(_UNSTORABLE.sub("\ufffd", cut(text, 4 * length + HALF, keep)))
    if len(text) <= length:
        return text
    return text[: length - 1] + "…" if keep == "start" else "…" + text[-length + 1 :]


def cut(text: str, length: int, keep: Literal["start", "end"] = "start") -> str:
    """At most `length` characters of a text that is not masked yet: to mask a megabyte takes long. Where it
    is cut there may stand half an address or half a secret, which no pattern knows: up to the next space,
    or the next line, it is left out."""
    if len(text) <= length:
        return text
    # A secret of our own is taken out first, that it may not be cut in two.
    if keep == "start":
        window = hide(text[: length + HALF])[:length]
        length = len(window)
        return window[: max(window.rfind(" ", -HALF), window.rfind("\n", -HALF), length - HALF, 0)] + "…"
    window = hide(text[-length - HALF :])[-length:]
    line = window.find("\n", 0, HALF)
    return "…" + window[HALF if line < 0 else line :]


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
            return {_bounded(_spoken(key)): _masked_within(inner, levels - 1) for key, inner in value.items()}
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
"""Stands for a line break of the program's own while the message is made. Nothing foreign can know it."""


def _message_lines(record: logging.LogRecord) -> list[str]:
    """The message as the lines that the program wrote. A line break in what was put in by an argument starts no line."""
    if not record.args or not isinstance(record.msg, str) or "\n" not in record.msg:
        return [_bounded(_message(record))]
    marked = logging.makeLogRecord(vars(record) | {"msg": record.msg.replace("\n", _BREAK)})
    return _bounded(_message(marked)).split(_BREAK)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, event, message, and what the caller added."""

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
    """A line for people: time, level when it is not info, message. Only what begins at the margin is an entry of the log: the
    further lines of a message or a stack trace are set in."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        first, *more = _message_lines(record)
        if record.exc_info:
            more += _bounded(self.formatException(record.exc_info), "end").split("\n")
        return "\n".join([f"{moment} {level}{safe(first)}", *(f"  {safe(line)}" for line in more)])


def configure_logging(level: str = "info", style: Literal["auto", "human", "json"] = "auto") -> None:
    """Sends every log line of the process to standard error, masked. auto: for people when that is a terminal."""
    human = style == "human" or (style == "auto" and sys.stderr.isatty())
    handler = handler_for(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write the addresses of requests, or what is said on the wire.
    for chatty in ("httpx", "httpcore", "aiosmtplib", "psycopg", "mail.log", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
