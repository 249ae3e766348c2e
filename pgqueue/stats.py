"""The numbers of a queue, as `stats()` of both clients answers them."""

import msgspec


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs in each state, what waits, and how the last 15 minutes went: the row of
    sql/monitoring/job_stats.sql. Live and dead jobs are counted up to 100,000 each; times are in
    seconds."""

    enqueued: int
    processing: int
    failed: int
    dlq: int
    completed: int
    cancelled: int
    estimated: bool
    """`completed` and `cancelled` come from Postgres' statistics: the table is above 64 MB."""
    ready: int
    """Waiting jobs that are due."""
    scheduled: int
    """Waiting jobs that are not due yet."""
    oldest_ready_s: float | None
    """How long the oldest ready job has been due; None when none is ready."""
    recent_finished: int
    """Of the newest 10,000 jobs of the last 15 minutes: how many have ended."""
    recent_failed_share: float | None
    """Of those that ended or wait for a retry: the part that failed, from 0 to 1."""
    recent_p50_s: float | None
    """From due to done, the median."""
    recent_p99_s: float | None
