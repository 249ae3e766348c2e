"""Handlers whose attempts end in odd ways, and texts that are hard to mask, to store or to
print."""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any

from pgqueue import DependencyDown, Discard, Job, Retry, Snooze, task
from tests.chaos.size import span
from tests.chaos.tasks import QUICKLY, began, done

log = logging.getLogger("tests.chaos.odd")

TEXTS: dict[str, str] = {
    "a run of dots": "a@" + "." * 70,
    "a long run of dots": "a@" + "a." * 40_000,
    "many starts of an address": "a@" * 40_000,
    "a local part without an end": "a" * 200_000 + "@",
    "encoded addresses": "a%40" + "a." * 40_000,
    "a URL that does not end": "postgres://" + "a:" * 40_000,
    "many URLs": "x://" * 40_000 + "@",
    "secrets": "password=" * 20_000,
    "quotes": "token='" + "\\'" * 40_000,
    "lists of secrets": "tokens=" + "(" * 80_000,
    "bearers": "Bearer " * 20_000,
    "blanks": " " * 200_000 + "x",
    "brackets": "{" * 100_000,
    "NUL": "a\0b",
    "surrogates": "a\ud800b\udfff",
    "a line of its own": 'a\n{"level": "info", "event": "job.completed"}\r\nb',
    "a terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "directions": "a\u202egnp.exe\u2066\u2028\u0085",
    "a template": "%s %(message)s {0.__class__} ${jndi:ldap://x} {{ 7 * 7 }}",
    "markup": "[red]x[/red][/]<script>alert(1)</script>",
    "nothing": "",
}

WHERES = ("error", "cause", "retry", "discard", "snooze", "down", "receipt", "progress", "log")

_SEEN: set[str] = set()


def first_time(job: Job[Any]) -> bool:
    """Once in this process: for endings that burn no attempt."""
    seen = job.job_id in _SEEN
    _SEEN.add(job.job_id)
    return not seen


@task("odd.says", backoff=QUICKLY, max_attempts=2)
async def says(job: Job[Any]) -> None:
    """Puts one of TEXTS into one of WHERES."""
    began(job)
    text = TEXTS[job.payload["text"]]
    match job.payload["where"]:
        case "error":
            raise RuntimeError(text)
        case "cause":
            raise RuntimeError("because of something") from ValueError(text)
        case "retry":
            raise Retry(text, after=0.1)
        case "discard":
            raise Discard(text)
        case "snooze" if first_time(job):
            raise Snooze(1, text)
        case "down" if first_time(job):
            raise DependencyDown(text, text)
        case "receipt":
            job.receipt = text
        case "progress":
            await job.progress(0.5, text)
        case "log":
            log.warning("the handler says %s", text, extra={"jobId": job.job_id, "detail": text})
    done(job)


@task("odd.quiet")
async def quiet(job: Job[Any]) -> None:
    """Writes nothing down, for its id may be no word."""


class Unprintable:
    """`str()` of it raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class UnprintableError(Exception):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class ForgetfulRetry(Retry):
    def __init__(self) -> None:
        pass


class ForgetfulSnooze(Snooze):
    def __init__(self) -> None:
        pass


class ForgetfulDown(DependencyDown):
    def __init__(self) -> None:
        pass


class Grounded(BaseException):
    """No Exception at all."""


def _raised(error: BaseException) -> Callable[[Job[Any]], None]:
    def end(job: Job[Any]) -> None:
        raise error

    return end


def _raised_once(error: BaseException) -> Callable[[Job[Any]], None]:
    """The attempt is not burned, so that it would come again for ever."""

    def end(job: Job[Any]) -> None:
        if first_time(job):
            raise error

    return end


def _receipt(value: Any) -> Callable[[Job[Any]], None]:
    def end(job: Job[Any]) -> None:
        job.receipt = value

    return end


def _chain() -> BaseException:
    """A chain of causes that bites its own tail."""
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    return first


_ODD_FIELDS: Any = ("file", "seven", object(), 5)

ENDINGS: dict[str, Callable[[Job[Any]], None]] = {
    "its text raises": _raised(UnprintableError(ValueError("no text"))),
    "its text raises KeyboardInterrupt": _raised(UnprintableError(KeyboardInterrupt())),
    "its text raises SystemExit": _raised(UnprintableError(SystemExit(3))),
    "its argument has no text": _raised(RuntimeError(Unprintable(ValueError("no text")))),
    "KeyboardInterrupt": _raised(KeyboardInterrupt()),
    "SystemExit": _raised(SystemExit(0)),
    "GeneratorExit": _raised(GeneratorExit()),
    "StopIteration": _raised(StopIteration(1)),
    "CancelledError": _raised(asyncio.CancelledError("by itself")),
    "TimeoutError": _raised(TimeoutError()),
    "no Exception": _raised(Grounded("x\0")),
    "a group": _raised(ExceptionGroup("x\0", [ValueError("\ud800"), KeyError("x")])),
    "a chain without an end": _raised(_chain()),
    "no name": _raised(type("", (Exception,), {})("x")),
    "a name that is none": _raised(type("x\x1b[2J\n", (Exception,), {"__module__": 5})("x")),
    "a SyntaxError with odd fields": _raised(SyntaxError("x", _ODD_FIELDS)),
    "a Retry that forgot itself": _raised(ForgetfulRetry()),
    "a Snooze that forgot itself": _raised_once(ForgetfulSnooze()),
    "a DependencyDown that forgot itself": _raised_once(ForgetfulDown()),
    "a Snooze for a reason that is no text": _raised_once(Snooze(1, 12345)),  # type: ignore[arg-type]
    "a dependency with NUL": _raised_once(DependencyDown("x\0")),
    "a dependency with a surrogate": _raised_once(DependencyDown("x\ud800")),
    "a dependency without a name": _raised_once(DependencyDown("")),
    "a dependency that is no text": _raised_once(DependencyDown(7)),  # type: ignore[arg-type]
    "a receipt without a text": _receipt(Unprintable(ValueError("no text"))),
    "a receipt of bytes": _receipt(b"\xff\0"),
    "a receipt of surrogates": _receipt("\ud800\0"),
    "a receipt that is an object": _receipt({"a": object()}),
}


@task("odd.ends", backoff=QUICKLY, max_attempts=2)
async def ends(job: Job[Any]) -> None:
    began(job)
    ENDINGS[job.payload["how"]](job)
    done(job)


@task("odd.ends.in.a.thread", backoff=QUICKLY, max_attempts=2)
def ends_in_a_thread(job: Job[Any]) -> None:
    began(job)
    ENDINGS[job.payload["how"]](job)
    done(job)


@task("odd.disturbs", backoff=QUICKLY, max_attempts=2)
async def disturbs(job: Job[Any]) -> None:
    """Lays hands on the event loop, or on the process."""
    began(job)
    match job.payload["how"]:
        case "stops the loop":
            asyncio.get_running_loop().stop()
        case "cancels all tasks":
            for one in asyncio.all_tasks():
                one.cancel()
        case "ignores SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await span(0.1)
    done(job)


@task("odd.stubborn", max_attempts=1)
async def stubborn(job: Job[Any]) -> None:
    """Does not end when it is told to."""
    began(job)
    while True:
        try:
            await span(3600)
        except asyncio.CancelledError:
            continue
