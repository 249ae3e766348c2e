"""What claim_jobs.sql and sweep_jobs.sql answer, row by row, in the order of their columns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pgqueue.job import Claim


class ClaimRow(NamedTuple):
    """A job that was claimed; or, with id None, the last row, where run_after is the database's clock."""

    id: Any
    lease: int
    lane: int
    """Which lane of the parameters, from 1."""
    job_id: str
    job_type: str
    user_id: str
    attempt_count: int
    max_attempts: int
    payload: bytes
    created_at: datetime
    run_after: datetime
    next_run_after: datetime | None
    """Only in the last row: when more is due, if that is known."""
    paused: list[str]
    """Only in the last row."""
    uncertain: bool
    trouble: list[str] | None
    """Only in the last row: "name state" of each dependency that is not at ease."""


class SweepRow(NamedTuple):
    """A job that was mended; or what there is to know of a lane (action lane) or of the database's clock (action clock)."""

    id: Any
    lease: int
    lane: int
    job_id: str
    job_type: str
    user_id: str
    attempt_count: int
    """Of a lane: how many rows were seen. Of the clock: 0 when this worker's row has gone."""
    max_attempts: int
    """Of a lane: how many due jobs were left behind."""
    payload: bytes
    created_at: datetime
    run_after: datetime
    action: str
    uncertain: bool
    trouble: list[str] | None
    """Only in the row of the clock, as in ClaimRow."""


def claim_from(row: ClaimRow | SweepRow, queue: str, *, rescued: bool = False) -> Claim:
    return Claim(
        row.id,
        row.lease,
        row.job_id,
        row.job_type,
        row.user_id,
        row.attempt_count,
        row.max_attempts,
        row.payload,
        row.created_at,
        queue,
        rescued,
        row.uncertain,
    )


def probe_from(row: Sequence[Any]) -> Claim:
    """The one row of claim_probe.sql."""
    id, lease, _, job_id, job_type, user_id, attempt, most, payload, created_at, _, queue, uncertain, dependency = row
    return Claim(id, lease, job_id, job_type, user_id, attempt, most, payload, created_at, queue, False, uncertain, dependency)
