"""Decides, and touches nothing: how long to wait after a failure, and what becomes of a job whose
attempt has ended."""

import random
from datetime import timedelta
from typing import Any

import msgspec

from pgqueue.attempt import BaseJob, Claim, Outcome
from pgqueue.declarations import CONTROL
from pgqueue.durations import duration
from pgqueue.error_text import cause_of, headline, name_of, stack_of, text_of
from pgqueue.errors import DependencyDown, Discard, Ending, Retry, Snooze
from pgqueue.job import Status
from pgqueue.masking import ERROR_LENGTH, STACK_LENGTH, clean
from pgqueue.task import Backoff

DEPENDENCY_DELAY = timedelta(seconds=30)
"""How long a job waits that calls something down which its type does not depend on: no breaker
holds it back."""

SHORTEST_SNOOZE = timedelta(seconds=1)
"""A job that asked for less would be started as fast as the worker can."""

RECEIPT_LENGTH = 500
NAME_LENGTH = 255

COMPLETED = Outcome(Status.COMPLETED)


class Undecodable(Exception):
    """The payload does not fit the type that the task declares; the handler was not called."""


class TimedOut(Exception):
    """The attempt took longer than the task's timeout."""


class Released(Exception):
    """The worker stops; the job goes back to its place, and the attempt does not count."""


def backoff_delay(backoff: Backoff, attempt: int, jitter: float | None = None) -> timedelta:
    """The wait after failed attempt `attempt` (from 1): base * 2^(attempt-1), never shorter, plus
    `jitter` (0 to 1, random when None) tenths of that, at most the cap."""
    share = random.random() if jitter is None else jitter
    seconds = (
        duration(backoff.base).total_seconds() * 2.0 ** min(attempt - 1, 60) * (1 + 0.1 * share)
    )
    return min(timedelta(seconds=min(seconds, 1e9)), duration(backoff.cap))


_OUR_OWN_FAULT = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    AssertionError,
    ArithmeticError,
)


def blames_dependency(error: BaseException) -> bool:
    """Whether a failure may be the fault of the dependency: not a mistake in the program or in its
    data. (OSError first: a certificate that cannot be trusted is a ValueError too.)"""
    return isinstance(error, OSError) or not isinstance(error, _OUR_OWN_FAULT)


def verdict(
    claim: Claim,
    error: BaseException | None,
    backoff: Backoff = Backoff(),
    jitter: float | None = None,
    depends_on: str | None = None,
) -> Outcome:
    """What becomes of the job whose attempt ended with `error` (None: the handler returned)."""
    if error is None:
        return COMPLETED
    try:
        ending = _asked_for(error)
        if isinstance(ending, Outcome):
            return ending
        return _failed(claim, error, backoff, jitter, depends_on, advice=ending)
    except BaseException:  # noqa: BLE001 - a foreign class may fail at anything that is asked of it
        said = f"{name_of(error)}: the error cannot be read"
        return _after(claim, backoff, jitter, error=_text(said), certain=False)


def _asked_for(error: BaseException) -> Outcome | str | None:
    """The outcome that the class of the error asks for; None for an ordinary failure; advice for a
    class of the application's own that does not say what its kind has to."""
    match error:
        case Released():
            return Outcome(Status.ENQUEUED, certain=False)
        case Snooze():
            try:
                delay = max(duration(error.delay), SHORTEST_SNOOZE)
            except (AttributeError, ValueError):
                return (
                    f"{name_of(error)} is a Snooze without a delay: call super().__init__(delay) "
                    "in its __init__"
                )
            reason = getattr(error, "reason", None)
            return Outcome(
                Status.ENQUEUED,
                delay=delay,
                error=None if reason is None else _text(text_of(reason)),
            )
        case DependencyDown():
            name = getattr(error, "dependency", None)
            if not isinstance(name, str) or not name:
                return (
                    f"{name_of(error)} names no dependency: call super().__init__(name) in its "
                    "__init__"
                )
            try:
                aside = None if error.after is None else duration(error.after)
            except ValueError as wrong:
                return f"its `after` is {wrong}"
            return Outcome(
                Status.ENQUEUED,
                delay=max(DEPENDENCY_DELAY, aside or DEPENDENCY_DELAY),
                error=_text(text_of(error)),
                dependency=CONTROL.sub("\ufffd", text_of(name, NAME_LENGTH)),
                down=True,
                aside=aside,
            )
        case Discard():
            return Outcome(
                Status.DLQ,
                error=_text(text_of(error) or "discarded"),
                answered=bool(error.answered),
            )
        case Undecodable():
            return Outcome(Status.DLQ, error=_text(f"The payload cannot be read: {text_of(error)}"))
    return None


def _failed(
    claim: Claim,
    error: BaseException,
    backoff: Backoff,
    jitter: float | None,
    depends_on: str | None,
    advice: str | None,
) -> Outcome:
    said, stack = _failure(error)
    after, answered = None, False
    if isinstance(error, Retry):
        answered = bool(error.answered)
        try:
            after = None if error.after is None else duration(error.after)
        except ValueError as wrong:
            advice = f"its `after` is {wrong}"
    return _after(
        claim,
        backoff,
        jitter,
        error=_text(f"{said} ({advice})" if advice else said),
        stack_trace=stack,
        dependency=depends_on
        if blames_dependency(error) and not (answered or isinstance(error, Snooze))
        else None,
        answered=answered,
        retry_after=after,
        certain=isinstance(error, Ending)
        and not (isinstance(error, Retry) and bool(error.uncertain)),
    )


def _after(claim: Claim, backoff: Backoff, jitter: float | None, **outcome: Any) -> Outcome:
    """A burned attempt: again after the backoff, and no earlier than it asked for; or the
    dead-letter queue."""
    if claim.attempt >= claim.max_attempts:
        return Outcome(Status.DLQ, **outcome)
    delay = backoff_delay(backoff, claim.attempt, jitter)
    return Outcome(Status.FAILED, delay=max(delay, outcome.get("retry_after") or delay), **outcome)


def spared(outcome: Outcome, *, probe: bool) -> Outcome:
    """The same failure while the breaker is open: the attempt does not count, and the job waits at
    its old place; a failed probe goes to the back of its lane, so that one bad job is not every
    probe."""
    delay = outcome.aside or (timedelta() if probe else None)
    return msgspec.structs.replace(outcome, status=Status.ENQUEUED, delay=delay, stack_trace=None)


def _failure(error: BaseException) -> tuple[str, str | None]:
    cause = cause_of(error)
    if isinstance(error, TimedOut | Retry) and cause is None:
        return text_of(error), None
    stack = stack_of(cause or error if isinstance(error, Retry) else error)
    said = text_of(error) if isinstance(error, Retry) else headline(error)
    return said, clean(stack, STACK_LENGTH, keep="end")


def _text(text: str) -> str:
    return clean(text, ERROR_LENGTH)


def completed(job: BaseJob[Any] | None) -> Outcome:
    """The handler returned."""
    receipt = None if job is None else written_receipt(job)
    return COMPLETED if receipt is None else Outcome(Status.COMPLETED, receipt=receipt)


def written_receipt(job: BaseJob[Any]) -> str | None:
    """What the handler left as its receipt, as a text."""
    receipt = getattr(job, "receipt", None)
    return None if receipt is None else clean(text_of(receipt), RECEIPT_LENGTH)


def plain(outcome: Outcome) -> Outcome:
    """The same outcome with an error text that any database takes."""
    return msgspec.structs.replace(
        outcome, error="the error could not be stored", stack_trace=None, receipt=None
    )


def unwritten(outcome: Outcome, refusal: str) -> Outcome:
    """What becomes of a job whose attempt ended, but whose outcome the database refuses."""
    said = (
        f"The attempt ended as {outcome.status}, but the database refuses to store that "
        f"({refusal}). Its work may have been done"
    )
    return Outcome(Status.DLQ, error=_text(said), certain=False)
