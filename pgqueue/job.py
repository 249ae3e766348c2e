"""A job as callers see it: a new one, its ticket, its state, and filters of dead ones."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from uuid import UUID

import msgspec

from pgqueue.durations import Duration

if TYPE_CHECKING:
    from pgqueue.attempt import Job, ThreadJob

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
    """What a new job needs of a Task. It binds the payload's type, so that a type checker knows
    what goes with which task."""

    job_type: str
    payload_type: Any

    def __call__(self, job: "Job[P] | ThreadJob[P]") -> Any: ...


class AnyJob(msgspec.Struct, frozen=True):
    """A job to be enqueued, with a payload of any type."""

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
    """The id was made for this call: a job that has it is this one, stored by an earlier try whose
    answer was lost."""


class NewJob(AnyJob, Generic[Of], frozen=True):
    """A job to be enqueued. `task` is a Task or the name of a job type; `filled` are members that
    the server adds to what the caller sent: stored with the payload, ignored when two payloads are
    compared."""

    task: Kind[Of] | str
    payload: Of


class Ticket(msgspec.Struct, frozen=True):
    """The answer to an enqueue. `created` is false when the id was known; `status` is then the
    state of that job. In `enqueue_many` a refused item has no status but an `error`
    (RateLimited or DuplicatePayload)."""

    job_id: str
    status: Status | None
    created: bool
    error: Exception | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job. Times are aware datetimes in UTC, None when they have not come."""

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
    """A line about the work done, as the completed attempt left it."""
    history: list[dict[str, Any]]
    """What went wrong before, oldest first: failed attempts with time, worker, error and stack;
    replays."""


class DeadFilter(msgspec.Struct, frozen=True):
    """Which part of the dead-letter queue. `error` is a part of the error text, in any case; None
    lets everything pass."""

    job_type: str | None = None
    user_id: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    job_ids: list[str] | None = None


class Replayed(msgspec.Struct, frozen=True):
    """The result of replay_many: jobs that went back to their queues, jobs that matched, and how
    many of those are still dead."""

    retried: int
    matched: int
    remaining: int
    dry_run: bool
