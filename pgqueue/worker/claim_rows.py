"""What claim_jobs.sql, sweep_jobs.sql and claim_probe.sql answer, row by row, in the order of their
columns."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from pgqueue.attempt import Claim

Row = tuple[Any, ...]

PAYLOAD = 8
"""The column of a job's payload, and in the row of the clock what else there is to know."""

_NTH = 10
_nth = itemgetter(_NTH)


class Answer(NamedTuple):
    """What a claim brought."""

    jobs: list[Row]
    """In their order."""
    lanes: dict[int, tuple[int, tuple[datetime, str]]]
    """Lane (from 1) that gave jobs -> how many, and the place of the last."""
    now: datetime
    """By the database's clock."""
    next_due: float | None
    """In so many seconds more is due, if that is known."""
    paused: list[str]
    trouble: list[str]
    """"name state" of each dependency that is not at ease."""


def answer_from(rows: Sequence[Row]) -> Answer:
    """Of the rows of claim_jobs.sql, which come in no order that is promised."""
    jobs: list[Row] = []
    lanes = {}
    clock: Row = ()
    for row in rows:
        id, _, lane, job_id, *_ = row
        if job_id is not None:
            jobs.append(row)
        elif id is not None:
            lanes[lane] = (row[_NTH], (row[-1], id))
        else:
            clock = row
    jobs.sort(key=_nth)
    said = msgspec.json.decode(clock[PAYLOAD])
    next_due = None if clock[_NTH] is None else clock[_NTH] / 1_000_000
    return Answer(jobs, lanes, clock[-1], next_due, said["paused"], said["trouble"])


def claim_from(row: Row, queue: str) -> Claim:
    """Of a job in an Answer."""
    id, lease, _, job_id, job_type, user_id, attempt, most, payload, created_at, _, uncertain, _ = (
        row
    )
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


class SweepRow(NamedTuple):
    """A job that a sweep changed; or facts of a lane (action lane) or of the database's clock (action
    clock)."""

    id: Any
    lease: int
    """Of a lane: how many jobs to be rescued were left behind."""
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
    """Only in the row of the clock, as in Answer."""


def claim_from_sweep(row: SweepRow, queue: str) -> Claim:
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
    """Of the one row of claim_probe.sql."""
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
