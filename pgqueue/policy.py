"""Decides, and touches nothing: how long to wait after a failure, and what becomes of a job whose attempt has ended."""

import random
import traceback
from datetime import timedelta

import msgspec

from pgqueue.durations import duration
from pgqueue.errors import DependencyDown, Discard, Retry, Snooze
from pgqueue.job import Claim, Outcome, Status
from pgqueue.task import Backoff
from pgqueue.telemetry import clean

DEPENDENCY_DELAY = timedelta(seconds=30)
"""How long a job whose dependency is down waits before it is tried again."""

ERROR_LENGTH = 2_000
STACK_LENGTH = 8_000


class Undecodable(Exception):
    """The payload does not fit the type that the task declares; the handler was not called."""


class TimedOut(Exception):
    """The attempt took longer than the task's timeout."""


class Released(Exception):
    """The worker stops; the job goes back to its place, and the attempt does not count."""


def backoff_delay(backoff: Backoff, attempt: int, jitter: float | None = None) -> timedelta:
    """The wait after failed attempt `attempt` (from 1): base * 2^(attempt-1), never shorter, plus `jitter` (0 to 1, random when
    None) tenths of that, at most the cap."""
    share = random.random() if jitter is None else jitter
    seconds = duration(backoff.base).total_seconds() * 2.0 ** min(attempt - 1, 60) * (1 + 0.1 * share)
    return min(timedelta(seconds=min(seconds, 1e9)), duration(backoff.cap))


def verdict(claim: Claim, error: BaseException | None, backoff: Backoff = Backoff(), jitter: float | None = None) -> Outcome:
    """What becomes of the job whose attempt ended with `error` (None: the handler returned)."""
    match error:
        case None:
            return Outcome(Status.COMPLETED)
        case Released():
            return Outcome(Status.ENQUEUED)
        case Snooze():
            return Outcome(Status.ENQUEUED, delay=error.delay, error=_text(error.reason))
        case DependencyDown():
            return Outcome(Status.ENQUEUED, delay=DEPENDENCY_DELAY, error=_text(f"{error}"), dependency=error.dependency)
        case Discard():
            return Outcome(Status.DLQ, error=_text(f"{error}" or "discarded"))
        case Undecodable():
            return Outcome(Status.DLQ, error=_text(f"The payload cannot be read: {error}"))
    spoken, stack = _failure(error)
    if claim.attempt >= claim.max_attempts:
        return Outcome(Status.DLQ, error=spoken, stack_trace=stack)
    delay = backoff_delay(backoff, claim.attempt, jitter)
    if isinstance(error, Retry) and error.after is not None:
        delay = max(delay, error.after)
    return Outcome(Status.FAILED, delay=delay, error=spoken, stack_trace=stack)


def _failure(error: BaseException) -> tuple[str | None, str | None]:
    if isinstance(error, TimedOut | Retry) and error.__cause__ is None:
        return _text(f"{error}"), None
    stack = "".join(traceback.format_exception(error.__cause__ or error if isinstance(error, Retry) else error))
    spoken = f"{error}" if isinstance(error, Retry) else f"{type(error).__name__}: {error}".rstrip(": ")
    return _text(spoken), clean(stack, STACK_LENGTH, keep="end")


def _text(text: str | None) -> str | None:
    return None if text is None else clean(text, ERROR_LENGTH)


def plain(outcome: Outcome) -> Outcome:
    """The same outcome with an error text that any database takes."""
    return msgspec.structs.replace(outcome, error="the error could not be stored", stack_trace=None)
