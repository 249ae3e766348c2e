"""The bodies of responses: every member is always there, times are YYYY-MM-DDTHH:MM:SS.mmmZ in
UTC."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from pgqueue.job import JobView, Replayed
from pgqueue.masking import mask
from pgqueue_service.api.schemas import Shape
from pgqueue_service.times import written


class Accepted(msgspec.Struct, rename="camel"):
    """An enqueued job and its state now. The same job posted again gets the same answer until it
    has ended."""

    message: str
    job_id: str
    status: str


class Health(msgspec.Struct):
    """ok, or ready."""

    status: str


class BulkResult(Shape, omit_defaults=True):
    """The result of one item: jobId and status, or error and code (the HTTP status that it would
    have had alone)."""

    job_id: str | None = None
    status: str | None = None
    error: str | None = None
    code: int | None = None
    retry_after: int | None = None
    job_status: str | None = None


class BulkResults(Shape):
    """A result for each item, in order."""

    results: list[BulkResult]


class Progress(Shape):
    """The progress that a job reports: a fraction from 0 to 1, and a note."""

    fraction: float
    note: str | None


class Trouble(Shape):
    """An event in the history of a job: a failed attempt, or a replay (`event`)."""

    at: str | None
    attempt: int | None
    event: str | None
    error: str | None


class JobState(Shape):
    """The state of a job: no payload, no stack trace, no e-mail address. `receipt` is the proof of
    its completion, such as the reply of a mail server."""

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
    """A job in the dead-letter queue. `deadAt` is the time at which it was moved there,
    `lastAttemptAt` the start of its last attempt."""

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
    """A page of the dead-letter queue, newest first: `count` jobs of the `total` that match the
    filter (counted up to 100,000)."""

    count: int
    jobs: list[DeadJob]
    total: int
    next_cursor: str | None


class ReplayAnswer(Shape):
    """Of `matched` jobs, `retried` were enqueued again and `remaining` are still dead."""

    retried: int
    matched: int
    remaining: int
    dry_run: bool

    @classmethod
    def of(cls, replayed: Replayed) -> "ReplayAnswer":
        return cls(**msgspec.structs.asdict(replayed))


class QueueAnswer(Shape):
    """Whether a queue is paused."""

    queue: str
    paused: bool


def when(moment: datetime | None) -> str | None:
    return None if moment is None else written(moment)


def _masked(text: str | None) -> str | None:
    # SQL, or an older release, may have written it without a mask.
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


class Stats(Shape):
    """Jobs in each state, jobs that wait, and the last 15 minutes
    (sql/monitoring/job_stats.sql)."""

    enqueued: int
    processing: int
    failed: int
    dlq: int
    completed: int
    cancelled: int
    estimated: bool
    ready: int
    scheduled: int
    oldest_ready_s: float | None
    recent_finished: int
    recent_failed_share: float | None
    recent_p50_s: float | None
    recent_p99_s: float | None


class Worker(Shape):
    """A process as it describes itself (sql/monitoring/workers.sql)."""

    id: str
    kind: str
    host: str
    pid: int
    release: str
    queues: dict[str, int]
    started_at: str
    seen_s: float
    alive: bool
    asleep: bool
    detail: dict[str, Any]


class Workers(Shape):
    workers: list[Worker]


class Queue(Shape):
    """The jobs that wait in a queue, and its workers (sql/monitoring/queues.sql)."""

    queue: str
    paused: bool
    ready: int
    scheduled: int
    processing: int
    oldest_ready_s: float | None
    workers: int
    slots: int


class Queues(Shape):
    queues: list[Queue]


class Dependency(Shape):
    """A dependency of jobs, and the state of its circuit breaker: closed, open or half_open
    (sql/monitoring/dependencies.sql)."""

    dependency: str
    state: str
    reason: str | None
    opened_at: str | None
    open_s: float | None
    next_probe_s: float | None
    failures: int
    job_types: list[str]


class Dependencies(Shape):
    dependencies: list[Dependency]


class ErrorGroup(Shape):
    """Dead jobs whose errors differ only in numbers, ids and addresses
    (sql/monitoring/dead_letter_errors.sql)."""

    fingerprint: str
    count: int
    first: str
    last: str
    sample_job_id: str
    job_types: list[str]


class ErrorGroups(Shape):
    errors: list[ErrorGroup]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a report with its times as text."""
    return {
        name: written(value) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def masked(row: dict[str, Any]) -> dict[str, Any]:
    """The row without e-mail addresses in its reason, which may have been written by SQL."""
    return row | {"reason": None if row["reason"] is None else mask(row["reason"])}
