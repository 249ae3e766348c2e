"""What answers look like: members in camelCase and always there, times as YYYY-MM-DDTHH:MM:SS.mmmZ
in UTC."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from pgqueue.job import JobView, Replayed
from pgqueue.masking import mask
from pgqueue_service.api.schemas import Shape
from pgqueue_service.notifications.members import written


class Accepted(msgspec.Struct, rename="camel"):
    """A job that was taken; `status` is its state now. The same job again gets the same answer
    while it is live."""

    message: str
    job_id: str
    status: str


class Health(msgspec.Struct):
    """ok, or ready."""

    status: str


class BulkResult(Shape, omit_defaults=True):
    """What came of one item: jobId and status, or error with code (the HTTP status it would have
    had alone)."""

    job_id: str | None = None
    status: str | None = None
    error: str | None = None
    code: int | None = None
    retry_after: int | None = None
    job_status: str | None = None


class BulkResults(Shape):
    """A result for each item, in their order."""

    results: list[BulkResult]


class Progress(Shape):
    """How far a job says it is: a fraction from 0 to 1, and its words for it."""

    fraction: float
    note: str | None


class Trouble(Shape):
    """Something that happened to a job: an attempt that failed, or a replay (`event`)."""

    at: str | None
    attempt: int | None
    event: str | None
    error: str | None


class JobState(Shape):
    """A job as anybody may see it who knows its id: no payload, no stack, no address. `receipt` is
    what it has to show for its completion, such as the answer of a mail server."""

    job_id: str
    type: str
    status: str
    created_at: str
    processed_at: str | None
    attempt_count: int
    error: str | None
    max_attempts: int
    queue: str
    priority: int
    run_after: str
    started_at: str | None
    progress: Progress | None
    receipt: str | None
    history: list[Trouble]

    @classmethod
    def of(cls, view: JobView) -> "JobState":
        return cls(
            job_id=view.job_id,
            type=view.job_type,
            status=view.status,
            created_at=written(view.created_at),
            processed_at=when(view.processed_at),
            attempt_count=view.attempt_count,
            error=_masked(view.error),
            max_attempts=view.max_attempts,
            queue=view.queue,
            priority=view.priority,
            run_after=written(view.run_after),
            started_at=when(view.started_at),
            progress=None
            if view.progress is None
            else Progress(fraction=view.progress, note=_masked(view.progress_note)),
            receipt=_masked(view.receipt),
            history=[_trouble(one) for one in view.history or []],
        )


class DeadJob(Shape):
    """A job in the dead-letter queue. `deadAt` is when it got there, `lastAttemptAt` when its last
    attempt began."""

    id: str
    job_id: str
    job_type: str
    user_id: str
    status: str
    payload: Any
    error: str | None
    stack_trace: str | None
    attempt_count: int
    created_at: str
    processed_at: str | None
    last_attempt_at: str | None
    dead_at: str | None

    @classmethod
    def of(cls, view: JobView) -> "DeadJob":
        return cls(
            id=str(view.id),
            job_id=view.job_id,
            job_type=view.job_type,
            user_id=view.user_id,
            status=view.status,
            payload=view.payload,
            error=_masked(view.error),
            stack_trace=_masked(view.stack_trace),
            attempt_count=view.attempt_count,
            created_at=written(view.created_at),
            processed_at=when(view.processed_at),
            last_attempt_at=when(view.started_at),
            dead_at=when(view.dead_at),
        )


class DeadPage(Shape):
    """A page of the dead-letter queue, newest first: `count` jobs of `total` that pass the filter
    (counted up to 100,000)."""

    count: int
    jobs: list[DeadJob]
    total: int
    next_cursor: str | None


class ReplayAnswer(Shape):
    """`retried` jobs went back of `matched`; `remaining` are still dead."""

    retried: int
    matched: int
    remaining: int
    dry_run: bool

    @classmethod
    def of(cls, replayed: Replayed) -> "ReplayAnswer":
        return cls(**msgspec.structs.asdict(replayed))


class QueueAnswer(Shape):
    """Whether a queue is paused now."""

    queue: str
    paused: bool


def when(moment: datetime | None) -> str | None:
    return None if moment is None else written(moment)


def _masked(text: str | None) -> str | None:
    # What SQL wrote there, or a release that did not mask it yet.
    return None if text is None else mask(text)


def _trouble(entry: dict[str, Any]) -> Trouble:
    error, attempt, event = entry.get("error"), entry.get("attempt"), entry.get("event")
    return Trouble(
        at=_moment_in_history(entry.get("at")),
        attempt=attempt if isinstance(attempt, int) else None,
        event=event if isinstance(event, str) else None,
        error=mask(error) if isinstance(error, str) else None,
    )


def _moment_in_history(text: Any) -> str | None:
    try:
        return written(datetime.fromisoformat(text).astimezone(UTC))
    except (TypeError, ValueError, OverflowError):
        return None
