"""Decides, and touches nothing: how long to wait after a failure, and what becomes of a job whose attempt has ended."""

import random
import traceback
from datetime import timedelta
from typing import Any

import msgspec

from pgqueue.durations import duration
from pgqueue.errors import DependencyDown, Discard, Ending, Retry, Snooze
from pgqueue.job import Claim, Job, Outcome, Status
from pgqueue.task import Backoff
from pgqueue.telemetry import clean

DEPENDENCY_DELAY = timedelta(seconds=30)
"""How long a job waits that calls something down which its type does not depend on: no breaker holds it back."""

ERROR_LENGTH = 2_000
STACK_LENGTH = 8_000
RECEIPT_LENGTH = 500


COMPLETED = Outcome(Status.COMPLETED)


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


_OUR_OWN_FAULT = (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError, ArithmeticError)


def blames_dependency(error: BaseException) -> bool:
    """Whether a failure may be the fault of what the job depends on: whatever went wrong outside; not what is a mistake in the
    program or in its data. (OSError first: a certificate that cannot be trusted is a ValueError too.)"""
    return isinstance(error, OSError) or not isinstance(error, _OUR_OWN_FAULT)


def verdict(
    claim: Claim,
    error: BaseException | None,
    backoff: Backoff = Backoff(),
    jitter: float | None = None,
    depends_on: str | None = None,
) -> Outcome:
    """What becomes of the job whose attempt ended with `error` (None: the handler returned)."""
    match error:
        case None:
            return COMPLETED
        case Released():
            return Outcome(Status.ENQUEUED, certain=False)
        case Snooze():
            return Outcome(Status.ENQUEUED, delay=error.delay, error=_text(error.reason))
        case DependencyDown():
            return Outcome(
                Status.ENQUEUED,
                delay=max(DEPENDENCY_DELAY, error.after or DEPENDENCY_DELAY),
                error=_text(spoken(error)),
                dependency=error.dependency,
                down=True,
                aside=error.after,
            )
        case Discard():
            return Outcome(Status.DLQ, error=_text(spoken(error) or "discarded"), answered=error.answered)
        case Undecodable():
            return Outcome(Status.DLQ, error=_text(f"The payload cannot be read: {error}"))
    said, stack = _failure(error)
    delay = None if claim.attempt >= claim.max_attempts else backoff_delay(backoff, claim.attempt, jitter)
    after = error.after if isinstance(error, Retry) else None
    answered = isinstance(error, Retry) and error.answered
    return Outcome(
        Status.DLQ if delay is None else Status.FAILED,
        delay=delay if delay is None or after is None else max(delay, after),
        error=said,
        stack_trace=stack,
        dependency=depends_on if blames_dependency(error) and not answered else None,
        answered=answered,
        retry_after=after,
        certain=isinstance(error, Ending) and not (isinstance(error, Retry) and error.uncertain),
    )


def spared(outcome: Outcome, *, probe: bool) -> Outcome:
    """The same failure while the breaker is open: the attempt does not count, and the job waits at its old place; a failed probe
    goes to the back of its lane, so that one bad job is not every probe."""
    delay = outcome.aside or (timedelta() if probe else None)
    return msgspec.structs.replace(outcome, status=Status.ENQUEUED, delay=delay, stack_trace=None)


def _failure(error: BaseException) -> tuple[str | None, str | None]:
    if isinstance(error, TimedOut | Retry) and error.__cause__ is None:
        return _text(spoken(error)), None
    stack = "".join(traceback.format_exception(error.__cause__ or error if isinstance(error, Retry) else error))
    said = spoken(error) if isinstance(error, Retry) else f"{type(error).__name__}: {spoken(error)}".rstrip(": ")
    return _text(said), clean(stack, STACK_LENGTH, keep="end")


def spoken(error: BaseException) -> str:
    """What it says; an exception may fail even at that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is somebody else's __str__
        return "(its text cannot be read)"


def _text(text: str | None) -> str | None:
    return None if text is None else clean(text, ERROR_LENGTH)


def completed(job: Job[Any] | None) -> Outcome:
    """The handler returned."""
    receipt = None if job is None else written_receipt(job)
    return COMPLETED if receipt is None else Outcome(Status.COMPLETED, receipt=receipt)


def written_receipt(job: Job[Any]) -> str | None:
    return None if job.receipt is None else clean(str(job.receipt), RECEIPT_LENGTH)


def plain(outcome: Outcome) -> Outcome:
    """The same outcome with an error text that any database takes."""
    return msgspec.structs.replace(outcome, error="the error could not be stored", stack_trace=None, receipt=None)


def unwritten(outcome: Outcome, refusal: str) -> Outcome:
    """What becomes of a job whose attempt ended, but whose outcome the database refuses."""
    said = f"The attempt ended as {outcome.status}, but the database refuses to store that ({refusal}). Its work may have been done"
    return Outcome(Status.DLQ, error=_text(said), certain=False)
