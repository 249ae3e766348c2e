"""The rows of claim_jobs.sql, sweep_jobs.sql and claim_probe.sql, in the order of their columns."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from pgqueue.attempt import Claim

Row = tuple[Any, ...]

PAYLOAD = 8
"""The column of a job's payload."""

_nth = itemgetter(10)


class ClaimAnswer(NamedTuple):
    """The answer of one claim."""

    jobs: list[Row]
    """In the order in which they are to start."""
    lanes: dict[int, tuple[int, tuple[datetime, str]]]
    """Lane (from 1) with claimed jobs -> how many, and the position of the last."""
    now: datetime
    """By the database's clock."""
    next_due: float | None
    """Seconds until the next known job is due."""
    paused: list[str]
    trouble: list[str]
    """"name state" of each dependency that is not well."""


def answer_from(rows: Sequence[Row]) -> ClaimAnswer:
    """Read the rows of claim_jobs.sql, which come in any order."""
    jobs: list[Row] = []
    lanes = {}
    clock: Row = ()
    for row in rows:
        id, _, lane, job_id, *_ = row
        if job_id is not None:
            jobs.append(row)
        elif lane is not None:
            run_after, taken, *_ = row[12:]
            lanes[lane] = (taken, (run_after, id))
        else:
            clock = row
    jobs.sort(key=_nth)
    now, next_due, paused, trouble = clock[14:]
    return ClaimAnswer(jobs, lanes, now, next_due and next_due / 1_000_000, paused, trouble)


def claim_from(row: Row, queue: str) -> Claim:
    """Make the claim of a job in a ClaimAnswer."""
    (
        id,
        lease,
        _,
        job_id,
        job_type,
        user_id,
        attempt,
        most,
        payload,
        created_at,
        _,
        uncertain,
        *_,
    ) = row
    return Claim(
        id,
        lease,
        job_id,
        job_type,
        user_id,
        attempt,
        most,
        payload,
        created_at,
        queue,
        False,
        uncertain,
    )


class SweptJob(NamedTuple):
    """A job that a sweep has changed."""

    id: Any
    lease: int
    lane: int
    job_id: str
    job_type: str
    user_id: str
    attempt_count: int
    max_attempts: int
    payload: bytes
    created_at: datetime
    run_after: datetime
    action: str
    uncertain: bool


class SweptLane(NamedTuple):
    """What a sweep saw in its slice of a lane."""

    lane: int
    place: tuple[datetime, Any]
    """Of the last row."""
    seen: int
    """Rows in the slice."""
    due_left: int
    """Due jobs that were left behind."""
    lapsed_left: int
    """Jobs whose lease ran out that were left behind."""


class Sweep(NamedTuple):
    """The answer of sweep_jobs.sql."""

    jobs: list[SweptJob]
    lanes: list[SweptLane]
    now: datetime
    """By the database's clock."""
    registered: bool
    """Whether this worker's row is in job_workers."""
    trouble: list[str]
    """As in Answer."""


def sweep_from(rows: Sequence[Row]) -> Sweep:
    """Of the rows of sweep_jobs.sql, which come in no order that is promised."""
    jobs, lanes = [], []
    clock: Row = ()
    for row in rows:
        id, _, lane, job_id, *_ = row
        if job_id is not None:
            jobs.append(SweptJob._make(row[:13]))
        elif lane is not None:
            seen, due_left, lapsed_left, *_ = row[13:]
            lanes.append(SweptLane(lane, (row[10], id), seen, due_left, lapsed_left))
        else:
            clock = row
    return Sweep(jobs, lanes, *clock[16:])


def claim_from_sweep(row: SweptJob, queue: str) -> Claim:
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
        row.action == "rescue",
        row.uncertain,
    )


def probe_from(row: Row) -> Claim:
    """Make the claim of the one row of claim_probe.sql."""
    (
        id,
        lease,
        _,
        job_id,
        job_type,
        user_id,
        attempt,
        most,
        payload,
        created_at,
        _,
        queue,
        uncertain,
        dependency,
    ) = row
    return Claim(
        id,
        lease,
        job_id,
        job_type,
        user_id,
        attempt,
        most,
        payload,
        created_at,
        queue,
        False,
        uncertain,
        dependency,
    )
