"""An attempt: what a worker claimed, what its handler gets, and how it ended."""

import reprlib
import sys
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, Protocol

import msgspec
from psycopg import AsyncConnection, Connection

from pgqueue.error_text import text_of
from pgqueue.job import Status
from pgqueue.masking import clean

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar  # psycopg depends on it for just these versions

P = TypeVar("P")
R = TypeVar("R", default=Any)
"""What a lifespan yields."""


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
    """An earlier attempt declared an irreversible side effect (`job.intend()`); its outcome is
    unknown."""
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
    """The dependency that the failure is attributed to; the circuit breaker counts it before the
    job's outcome is stored."""
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


class ThreadWrites(Protocol):
    """What the attempt of a plain function writes, from its thread."""

    def progress(self, claim: Claim, fraction: float, note: str | None) -> None: ...

    def intend(self, claim: Claim) -> None: ...

    def transaction(
        self, job: "ThreadJob[Any]", claim: Claim
    ) -> AbstractContextManager[Connection[Any]]: ...

    def stop(self, claim: Claim) -> None:
        """End what the attempt waits for: its lease is gone."""


class Writes(Protocol):
    """What a running attempt writes; a worker's goes to the database."""

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None: ...

    async def intend(self, claim: Claim) -> None: ...

    def transaction(
        self, job: "Job[Any]", claim: Claim
    ) -> AbstractAsyncContextManager[AsyncConnection[Any]]: ...

    def for_threads(self) -> ThreadWrites:
        """The same for plain functions; called in the event loop."""


NOTE_LENGTH = 1_000
NO_DATABASE = "there is no database here: job.transaction() needs a worker"


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


class BaseJob(Generic[P, R]):
    """What every handler gets: the payload, and the attempt's place among the others."""

    __slots__ = ("_claim", "payload", "receipt", "resources")

    def __init__(self, payload: P, claim: Claim, resources: R) -> None:
        self.payload = payload
        self.resources = resources
        """What the `lifespan` of the task's module, or of the Worker, yielded."""
        self.receipt: str | None = None
        """A line about the work done, without addresses: it is stored with the completion."""
        self._claim = claim

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
        """Whether an earlier attempt called `intend` and its outcome is unknown: the side effect
        may have happened, or not."""
        return self._claim.uncertain


class Job(BaseJob[P, R]):
    """What an `async def` handler gets: `job: Job[Resize]`, or `Job[Resize, Resources]` to have
    `resources` typed."""

    __slots__ = ("_writes",)

    def __init__(
        self, payload: P, claim: Claim, resources: Any = None, writes: Writes | None = None
    ) -> None:
        super().__init__(payload, claim, resources)
        self._writes = writes

    async def progress(self, fraction: float, note: str | None = None) -> None:
        """Store how far the job is (0 to 1), with a note. Raises LeaseLost when the attempt no
        longer holds the job."""
        progress = progress_of(fraction, note)
        if self._writes is not None:
            await self._writes.progress(self._claim, *progress)

    async def intend(self) -> None:
        """Store, durably, that the attempt now does what cannot be undone (sends, charges). If its
        outcome stays unknown, the next attempt is `uncertain`. Raises LeaseLost when the attempt no
        longer holds the job: then do not do it."""
        if self._writes is not None:
            await self._writes.intend(self._claim)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection[Any]]:
        """`async with job.transaction() as connection:` a transaction whose commit also completes
        the job: what the handler writes there happens exactly once. Raises LeaseLost and rolls back
        when the attempt no longer holds the job. Once for each job, and last: the job has ended
        when the block is left."""
        if self._writes is None:
            raise RuntimeError(NO_DATABASE)
        return self._writes.transaction(self, self._claim)


class ThreadJob(BaseJob[P, R]):
    """What a plain `def` handler gets, which runs in a thread: `job: ThreadJob[Resize]`. The same
    as Job, in calls that block."""

    __slots__ = ("_writes",)

    def __init__(
        self, payload: P, claim: Claim, resources: Any = None, writes: ThreadWrites | None = None
    ) -> None:
        super().__init__(payload, claim, resources)
        self._writes = writes

    def progress(self, fraction: float, note: str | None = None) -> None:
        """Store how far the job is (0 to 1), with a note. Raises LeaseLost when the attempt no
        longer holds the job."""
        progress = progress_of(fraction, note)
        if self._writes is not None:
            self._writes.progress(self._claim, *progress)

    def intend(self) -> None:
        """Store, durably, that the attempt now does what cannot be undone (sends, charges). If its
        outcome stays unknown, the next attempt is `uncertain`. Raises LeaseLost when the attempt no
        longer holds the job: then do not do it."""
        if self._writes is not None:
            self._writes.intend(self._claim)

    def transaction(self) -> AbstractContextManager[Connection[Any]]:
        """`with job.transaction() as connection:` a transaction whose commit also completes the
        job: what the handler writes there happens exactly once. Raises LeaseLost and rolls back
        when the attempt no longer holds the job. Once for each job, and last: the job has ended
        when the block is left."""
        if self._writes is None:
            raise RuntimeError(NO_DATABASE)
        return self._writes.transaction(self, self._claim)

    def stop(self) -> None:
        """End what the handler waits for here, with LeaseLost."""
        if self._writes is not None:
            self._writes.stop(self._claim)
