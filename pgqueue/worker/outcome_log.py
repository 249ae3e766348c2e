"""Outcomes of attempts, and the parameters of the statements that write them."""

import time
from typing import Any

from pgqueue.attempt import Outcome
from pgqueue.database.adapters import array
from pgqueue.worker.inflight import RunningAttempt

Ended = tuple[RunningAttempt, Outcome]
Key = tuple[str, int]
"""An attempt: row and lease. A worker can have two attempts of one row in flight, when the job was
cancelled and replayed."""


class RefusedOutcomes:
    """Outcomes that the database refused, and when they are sent again."""

    def __init__(
        self, statement: str, group: list[Ended], tries: int, lost: bool, last: bool
    ) -> None:
        self.statement = statement
        self.group = group
        self.tries = tries
        self.lost = lost
        self.last = last
        self.due = time.monotonic() + min(0.1 * 2**tries, 5.0)


def key(held: RunningAttempt) -> Key:
    return held.claim.id, held.claim.lease


def row_id(ended: Ended) -> str:
    return ended[0].claim.id


def leases(group: list[Ended]) -> dict[str, Any]:
    return {
        "ids": array(held.claim.id for held, _ in group),
        "leases": array(held.claim.lease for held, _ in group),
    }


def acks(group: list[Ended]) -> dict[str, Any]:
    receipts = [outcome.receipt for _, outcome in group]
    return leases(group) | {"receipts": receipts if any(receipts) else "{}"}


def failures(group: list[Ended]) -> dict[str, Any]:
    return leases(group) | {
        "statuses": [str(outcome.status) for _, outcome in group],
        "delays": [outcome.delay for _, outcome in group],
        "errors": [outcome.error for _, outcome in group],
        "stack_traces": [outcome.stack_trace for _, outcome in group],
        "certain": [outcome.certain and not held.claim.uncertain for held, outcome in group],
    }
