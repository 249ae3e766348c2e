"""Answers of the monitoring routes: the rows of sql/monitoring/, whose headers say what they mean
and what to do about them."""

from datetime import datetime
from typing import Any

from pgqueue.masking import mask
from pgqueue_service.api.schemas import Shape
from pgqueue_service.notifications.members import written


class Stats(Shape):
    """sql/monitoring/job_stats.sql: how many jobs are in each state, what waits, and how the last
    15 minutes went."""

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
    """sql/monitoring/workers.sql: a process, by its own word."""

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
    """sql/monitoring/queues.sql: what waits in a queue, and who serves it."""

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
    """sql/monitoring/dependencies.sql: what jobs depend on, and what its circuit breaker does
    (closed, open, half_open)."""

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
    """sql/monitoring/dead_letter_errors.sql: dead jobs whose errors differ in numbers, ids and
    addresses only."""

    fingerprint: str
    count: int
    first: str
    last: str
    sample_job_id: str
    job_types: list[str]


class ErrorGroups(Shape):
    errors: list[ErrorGroup]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its times written out."""
    return {
        name: written(value) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def masked(row: dict[str, Any]) -> dict[str, Any]:
    """The row without addresses in its reason: it may have been written by SQL."""
    return row | {"reason": None if row["reason"] is None else mask(row["reason"])}
