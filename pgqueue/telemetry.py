"""Logs: lines for people on a terminal, JSON elsewhere; and the place where addresses and secrets leave a text."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

# What comes before an @ is counted (a local part has at most 64 characters): without an end to it, 32,000 characters without a
# space took seconds, and a worker stands still meanwhile, the thread of its leases too.
ADDRESS = re.compile(r"""[^\s<>"(),:;\[\]@\\]{1,64}@(?:[^\s<>"'(),:;\[\]@=/\\]+\.)+[^\s<>"'(),:;\[\]@=/\\.]+""")
_BEFORE_ADDRESS = re.compile(r"""^(.*[='/])(?=[^='/]+@)""")
_ENCODED_ADDRESS = re.compile(r"([\w.+-]{1,64})%40((?:[\w-]+\.)+\w+)", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w://[^\s:/@]{0,256}):[^\s@]{0,4096}@(?=[^\s/@])")
_SECRET = re.compile(
    r"""(?i)(password|passwd|secret|token|api[-_]?key)(['"]?\s*[=:]\s*)(?:(\\?['"])(?:(?!\3)(?:\\.|[^\n])){1,512}|[^\s'",;&]+)"""
)
_SECRETS = re.compile(r"""(?i)(tokens['"]?\s*[=:]\s*)(?:\([^)]{1,4096}\)|\[[^\]]{1,4096}\]|[^\s;&]+?(?=,?(?:[\s;&]|$)))""")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[^\s'\",;&]+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def mask_address(address: str) -> str:
    """`u***@example.com`; a local part of one or two characters disappears altogether. Masking again changes nothing."""
    local, _, domain = address.rpartition("@")
    return f"{local[0]}***@{domain}" if len(local) > 2 and local != "***" else f"***@{domain}"


def mask(text: str) -> str:
    """The text without a whole e-mail address, and without the password of a URL or a `password=...`."""
    if "://" in text:
        text = _URL_PASSWORD.sub(r"\1:***@", text)
    if "@" in text:
        text = ADDRESS.sub(_masked, text)
    if "%40" in text:
        text = _ENCODED_ADDRESS.sub(r"***%40\2", text)
    if "=" in text or ":" in text:
        text = _SECRETS.sub(r"\1***", _SECRET.sub(r"\1\2\3***", text))
    return _BEARER.sub(r"\1 ***", text)


def _masked(found: re.Match[str]) -> str:
    # What stands before the address as in "to=ana@example.com" is kept; a local part may itself hold or end in such a character.
    lead = _BEFORE_ADDRESS.match(found[0])
    before = lead[1] if lead else ""
    return before + mask_address(found[0][len(before) :])


def clean(text: str, length: int, *, keep: Literal["start", "end"] = "start") -> str:
    """The text as it may be stored or logged: no NUL, no lone surrogates, masked, at most `length` characters."""
    # Cut generously before masking (an address must not be cut in two first), and to size after it.
    text = text[: length * 4] if keep == "start" else text[-length * 4 :]
    text = mask(_UNSTORABLE.sub("\ufffd", text))
    if len(text) <= length:
        return text
    return text[: length - 1] + "…" if keep == "start" else "…" + text[-length + 1 :]


_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra=`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _masked_within(value: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case dict():
            return {mask(str(key)): _masked_within(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked_within(inner) for inner in value]
    return value


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, event, message, and what the caller added."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, Any] = {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": "log",
            "message": mask(record.getMessage()),
        }
        for key, value in fields(record).items():
            entry[key] = _masked_within(value)
        if record.exc_info:
            entry["stack"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False, default=lambda value: mask(str(value)))


class HumanFormatter(logging.Formatter):
    """A line for people: time, level when it is not info, message."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        message = record.getMessage()
        if (job_id := getattr(record, "jobId", None)) and not job_id.isprintable():
            # An id that came by SQL may hold a line break, and must not forge a line.
            message = message.replace(job_id, repr(job_id))
        text = f"{moment} {level}{_CONTROL.sub(chr(0xFFFD), mask(message))}"
        if record.exc_info:
            text += "\n" + mask(self.formatException(record.exc_info))
        return text


def configure_logging(level: str = "info", style: Literal["auto", "human", "json"] = "auto") -> None:
    """Sends every log line of the process to standard error, masked. auto: for people when that is a terminal."""
    human = style == "human" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write the addresses of requests, or what is said on the wire.
    for chatty in ("httpx", "httpcore", "aiosmtplib", "psycopg", "mail.log", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
