"""An attempt: what a worker claimed, what its handler gets, and how it ended."""

import reprlib
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, NoReturn, Protocol

import msgspec

from pgqueue.error_text import text_of
from pgqueue.job import P, Status
from pgqueue.masking import clean


class Claim(msgspec.Struct, frozen=True):
    """One attempt, as a worker took it: the row's id, its lease, and the undecoded payload
    (JSON)."""

    id: str
    lease: int
    job_id: str
    job_type: str
    user_id: str
    attempt: int
    max_attempts: int
    payload: bytes | str
    created_at: datetime
    queue: str
    rescued: bool = False
    uncertain: bool = False
    """An earlier attempt said that it would do what cannot be taken back, and nobody heard how that
    ended."""
    probe: str | None = None
    """The dependency that this attempt is to try out, while all others of its kind wait."""


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended. `status` is what the row becomes: completed, failed (again after
    `delay`), dlq, or enqueued (the attempt does not count: again after `delay`, or at its old place
    when that is None)."""

    status: Status
    delay: timedelta | None = None
    error: str | None = None
    stack_trace: str | None = None
    dependency: str | None = None
    """What the failure is blamed on; the circuit breaker is told before the job is."""
    down: bool = False
    """It is known to be broken: no need to see others fail."""
    aside: timedelta | None = None
    """How long the job itself waits, although the breaker lets others keep their places."""
    answered: bool = False
    """What the job depends on works, although the attempt failed: it refused this job only."""
    retry_after: timedelta | None = None
    """How long it asked to be left alone."""
    certain: bool = True
    """What the attempt said that it would do (`job.intend`), it has not done."""
    receipt: str | None = None


class Writes(Protocol):
    """What a running attempt can have written; a worker's goes to the database."""

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None: ...

    async def intend(self, claim: Claim) -> None: ...

    def transaction(self, job: "Job[Any]", claim: Claim) -> AbstractAsyncContextManager[Any]: ...


NOTE_LENGTH = 1_000


def progress_of(fraction: object, note: object) -> tuple[float, str | None]:
    """A progress as it may be stored; the note cleaned and cut. TypeError, ValueError when it is
    none."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | Decimal):
        raise TypeError(f"progress is a number from 0 to 1, not {reprlib.repr(fraction)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"progress is a fraction from 0 to 1, not {reprlib.repr(fraction)}")
    if note is not None and not isinstance(note, str):
        raise TypeError(f"the note of a progress is a text, not {reprlib.repr(note)}")
    return float(fraction), None if note is None else clean(text_of(note), NOTE_LENGTH)


class Job(Generic[P]):
    """What a handler gets: its payload, and who and what the attempt is."""

    __slots__ = ("_claim", "_writes", "payload", "receipt", "resources")

    def __init__(
        self, payload: P, claim: Claim, resources: Any = None, writes: Writes | None = None
    ) -> None:
        self.payload = payload
        self.resources = resources
        """What the `lifespan` of the task's module yielded."""
        self.receipt: str | None = None
        """Set it to what there is to show for the work, a line without addresses: it is stored with
        the completion."""
        self._claim = claim
        self._writes = writes

    @property
    def job_id(self) -> str:
        """The same in every attempt."""
        return self._claim.job_id

    @property
    def job_type(self) -> str:
        return self._claim.job_type

    @property
    def user_id(self) -> str:
        return self._claim.user_id

    @property
    def attempt(self) -> int:
        """From 1 to `max_attempts`."""
        return self._claim.attempt

    @property
    def max_attempts(self) -> int:
        return self._claim.max_attempts

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued, by the database's clock; aware."""
        return self._claim.created_at

    @property
    def uncertain(self) -> bool:
        """Whether an earlier attempt called `intend` and nobody heard how that ended: it may have
        done it, or not."""
        return self._claim.uncertain

    async def progress(self, fraction: float, note: str | None = None) -> None:
        """Writes down how far the job is (0 to 1), for whoever looks at it. Raises LeaseLost when
        the job is no longer ours."""
        said = progress_of(fraction, note)
        if self._writes is not None:
            await self._writes.progress(self._claim, *said)

    async def intend(self) -> None:
        """Writes down, durably, that the attempt now does what it cannot take back (sends,
        charges). Should nobody hear how that ended, the next attempt is `uncertain`. Raises
        LeaseLost when the job is no longer ours: then do not do it."""
        if self._writes is not None:
            await self._writes.intend(self._claim)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """`async with job.transaction() as connection:` a psycopg.AsyncConnection in a transaction
        of its own, whose commit also completes the job: what the handler writes there happens
        exactly once. Raises LeaseLost and rolls back when the job is no longer ours. Once for each
        job, as the last thing that counts: the job is over when the block is left."""
        if self._writes is None:
            raise RuntimeError("there is no database here: job.transaction() needs a worker")
        return self._writes.transaction(self, self._claim)


class ThreadJob(Job[P]):
    """What a plain function gets, which runs in a thread: it cannot await, and has none of
    these."""

    __slots__ = ()

    def progress(self, fraction: float, note: str | None = None) -> NoReturn:
        raise RuntimeError("a synchronous handler has no progress")

    def intend(self) -> NoReturn:
        raise RuntimeError("a synchronous handler has no intend")

    def transaction(self) -> NoReturn:
        raise RuntimeError("a synchronous handler has no transaction")
