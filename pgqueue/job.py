"""The values that travel: a new job, its ticket, what a worker claimed, how the attempt ended, what a reader sees."""

import reprlib
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, NoReturn, Protocol, TypeVar
from uuid import UUID

import msgspec

from pgqueue.durations import Duration
from pgqueue.error_text import text_of
from pgqueue.telemetry import clean

P = TypeVar("P")
Of = TypeVar("Of", covariant=True)


class Status(StrEnum):
    """The six states, as they stand in the column `status`."""

    ENQUEUED = "enqueued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    """An attempt failed; the job will be tried again."""
    DLQ = "dlq"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (Status.COMPLETED, Status.DLQ, Status.CANCELLED)


class Kind(Protocol[P]):
    """What a new job needs of a Task. It binds the payload's type, so that a type checker knows what goes with which task."""

    job_type: str
    payload_type: Any

    def __call__(self, job: "Job[P]") -> Any: ...


class AnyJob(msgspec.Struct, frozen=True):
    """A job to be enqueued, whatever its payload is."""

    task: Any
    payload: Any
    job_id: str | None = None
    user_id: str | None = None
    queue: str | None = None
    priority: int | None = None
    run_after: datetime | None = None
    delay: Duration | None = None
    max_attempts: int | None = None
    filled: dict[str, Any] | None = None
    fresh_id: bool = False
    """The id was made for this very call: whatever has it is this job, stored by an earlier try whose answer was lost."""


class NewJob(AnyJob, Generic[Of], frozen=True):
    """A job to be enqueued. `task` is a Task or the name of a job type; `filled` are members that the server adds to what the
    caller sent: stored with the payload, ignored when two payloads are compared."""

    task: Kind[Of] | str
    payload: Of


class Ticket(msgspec.Struct, frozen=True):
    """What came of an enqueue. `created` is false when the id was known already, and `status` is then that job's state.
    In `enqueue_many` a refused item has no status but an `error` (RateLimited or DuplicatePayload)."""

    job_id: str
    status: Status | None
    created: bool
    error: Exception | None = None


class Claim(msgspec.Struct, frozen=True):
    """One attempt, as a worker took it: the row's id, its lease, and the undecoded payload (JSON)."""

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
    """An earlier attempt said that it would do what cannot be taken back, and nobody heard how that ended."""
    probe: str | None = None
    """The dependency that this attempt is to try out, while all others of its kind wait."""


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended. `status` is what the row becomes: completed, failed (again after `delay`), dlq, or enqueued (the
    attempt does not count: again after `delay`, or at its old place when that is None)."""

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


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands in the table. Times are aware datetimes in UTC, None when they have not come."""

    id: UUID
    job_id: str
    job_type: str
    user_id: str
    status: Status
    queue: str
    priority: int
    attempt_count: int
    max_attempts: int
    payload: Any
    error: str | None
    stack_trace: str | None
    created_at: datetime
    run_after: datetime
    started_at: datetime | None
    processed_at: datetime | None
    dead_at: datetime | None
    locked_by: str | None
    progress: float | None
    progress_note: str | None
    receipt: str | None
    """What the completed attempt has to show for it."""
    history: list[dict[str, Any]]
    """What went wrong before, oldest first: failed attempts with time, worker, error and stack; replays."""


class DeadFilter(msgspec.Struct, frozen=True):
    """Which part of the dead-letter queue. `error` is a part of the error text, in any case; None lets everything pass."""

    job_type: str | None = None
    user_id: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    job_ids: list[str] | None = None


class Replayed(msgspec.Struct, frozen=True):
    """What replay_many did: jobs that went back, jobs that matched, and how many of those are still dead."""

    retried: int
    matched: int
    remaining: int
    dry_run: bool


class Writes(Protocol):
    """What a running attempt can have written; a worker's goes to the database."""

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None: ...

    async def intend(self, claim: Claim) -> None: ...

    def transaction(self, job: "Job[Any]", claim: Claim) -> AbstractAsyncContextManager[Any]: ...


NOTE_LENGTH = 1_000


def progress_of(fraction: object, note: object) -> tuple[float, str | None]:
    """A progress as it may be stored; the note cleaned and cut. TypeError, ValueError when it is none."""
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

    def __init__(self, payload: P, claim: Claim, resources: Any = None, writes: Writes | None = None) -> None:
        self.payload = payload
        self.resources = resources
        """What the `lifespan` of the task's module yielded."""
        self.receipt: str | None = None
        """Set it to what there is to show for the work, a line without addresses: it is stored with the completion."""
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
        """Whether an earlier attempt called `intend` and nobody heard how that ended: it may have done it, or not."""
        return self._claim.uncertain

    async def progress(self, fraction: float, note: str | None = None) -> None:
        """Writes down how far the job is (0 to 1), for whoever looks at it. Raises LeaseLost when the job is no longer ours."""
        said = progress_of(fraction, note)
        if self._writes is not None:
            await self._writes.progress(self._claim, *said)

    async def intend(self) -> None:
        """Writes down, durably, that the attempt now does what it cannot take back (sends, charges). Should nobody hear how that
        ended, the next attempt is `uncertain`. Raises LeaseLost when the job is no longer ours: then do not do it."""
        if self._writes is not None:
            await self._writes.intend(self._claim)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """`async with job.transaction() as connection:` a psycopg.AsyncConnection in a transaction of its own, whose commit also
        completes the job: what the handler writes there happens exactly once. Raises LeaseLost and rolls back when the job is no
        longer ours. Once for each job, as the last thing that counts: the job is over when the block is left."""
        if self._writes is None:
            raise RuntimeError("there is no database here: job.transaction() needs a worker")
        return self._writes.transaction(self, self._claim)


class ThreadJob(Job[P]):
    """What a plain function gets, which runs in a thread: it cannot await, and has none of these."""

    __slots__ = ()

    def progress(self, fraction: float, note: str | None = None) -> NoReturn:
        raise RuntimeError("a synchronous handler has no progress")

    def intend(self) -> NoReturn:
        raise RuntimeError("a synchronous handler has no intend")

    def transaction(self) -> NoReturn:
        raise RuntimeError("a synchronous handler has no transaction")
