"""Writes the outcomes of attempts, in groups: while one statement is under way, the next group gathers."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Any

import psycopg

from pgqueue.database import AWAY, REFUSED, Link, Pace, array
from pgqueue.job import Outcome, Status
from pgqueue.policy import COMPLETED, plain
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.hand import Hand, Held

log = logging.getLogger("pgqueue.worker")

MOST = 1000
"""Outcomes in one statement."""

Ended = tuple[Held, Outcome]
Key = tuple[str, int]
"""An attempt: row and lease. Two attempts of one row may be in hand, when it was cancelled and replayed meanwhile."""


class Acker:
    """A statement at a time on a connection of its own. A slot is free when its ack is committed, or proven to be void."""

    def __init__(
        self,
        link: Link,
        hand: Hand,
        breaker: Breaker,
        settled: Callable[[Held, Outcome], None],
        expect: Callable[[float], None],
    ) -> None:
        self.link = link
        self.hand = hand
        self.breaker = breaker
        self.settled = settled
        self.expect = expect
        self._done: deque[Ended] = deque()
        self._notable: deque[Ended] = deque()
        """Completions that the circuit breaker has to hear of first."""
        self._failed: deque[Ended] = deque()
        self._shelved: deque[Ended] = deque()
        self._wake = asyncio.Event()
        self._busy = False
        self._stopping = False

    def put(self, held: Held, outcome: Outcome) -> None:
        if outcome.status is not Status.COMPLETED:
            self._failed.append((held, outcome))
        elif self.breaker.succeeded(held):
            self._notable.append((held, outcome))
        elif held.completed:
            self._settle(held, outcome, True, tell=True)
        else:
            self._done.append((held, outcome))
        self._wake.set()

    def shelve(self, held: Held) -> None:
        """For a job whose type this worker does not know."""
        self._shelved.append((held, Outcome(Status.ENQUEUED)))
        self._wake.set()

    @property
    def empty(self) -> bool:
        return not (self._busy or self._waiting)

    @property
    def _waiting(self) -> bool:
        return bool(self._done or self._notable or self._failed or self._shelved)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Until stopped and empty."""
        while not (self._stopping and self.empty):
            self._wake.clear()
            for statement, queue, judged in (
                ("ack_jobs", self._done, False),
                ("ack_jobs", self._notable, True),
                ("fail_jobs", self._failed, True),
                ("shelve_jobs", self._shelved, False),
            ):
                if queue:
                    self._busy = True
                    group = [queue.popleft() for _ in range(min(len(queue), MOST))]
                    await self._write(statement, await self._judged(group) if judged else group)
                    self._busy = False
            if not (self._waiting or self._stopping):
                await self._wake.wait()

    async def _judged(self, group: list[Ended]) -> list[Ended]:
        pace = Pace()
        while True:
            try:
                return await self.breaker.judge(group)
            except AWAY as error:
                wait = pace.grow()
                log.warning("%d outcomes wait for the database (%s)", len(group), type(error).__name__)
                await asyncio.sleep(wait)

    async def _write(self, statement: str, group: list[Ended]) -> None:
        pace = Pace()
        lost = False
        while True:
            try:
                group, written, rows = await self._send(statement, group, lost=lost)
                break
            except REFUSED as error:
                await self._split(statement, group, error)
                return
            except AWAY as error:
                lost = True
                wait = pace.grow()
                log.warning("%d outcomes wait for the database (%s)", len(group), type(error).__name__)
                await asyncio.sleep(wait)
        if statement == "shelve_jobs":
            self._tell_shelved(group, rows)
        for held, outcome in group:
            self._settle(held, outcome, _key(held) in written, tell=statement != "shelve_jobs")

    async def _send(self, statement: str, group: list[Ended], *, lost: bool) -> tuple[list[Ended], Set[Key], Sequence[Any]]:
        """One statement; the outcomes as they now are, which of them were written, and its rows."""
        if statement == "ack_jobs":
            group.sort(key=_row_id)
            if await self.link.count(statement, self._mine(_acks(group))) == len(group):
                return group, {_key(held) for held, _ in group}, ()
            # Not all of them: whose lease is gone, and whose reply was lost before?
            return *await self._confirmed(group, frozenset()), ()
        values = _failures(group) if statement == "fail_jobs" else _leases(group)
        rows = await self.link.run(statement, self._mine(values))
        written = {(row[0], row[1]) for row in rows}
        if len(written) < len(group) and (lost or any(held.completing for held, _ in group)):
            return *await self._confirmed(group, written), rows
        return group, written, rows

    async def _confirmed(self, group: list[Ended], written: Set[Key]) -> tuple[list[Ended], Set[Key]]:
        """Which of the rest were written too: by a statement whose reply was lost, or by the commit of a handler's own transaction,
        and then the job is completed whatever the handler made of that."""
        rest = [one for one in group if _key(one[0]) not in written]
        rows = await self.link.run("confirm_acks", self._mine(_leases(rest)))
        ended: dict[Key, str] = {(id, lease): status for id, lease, status in rows}
        group = [
            (held, COMPLETED if held.completing and ended.get(_key(held)) == Status.COMPLETED else outcome)
            for held, outcome in group
        ]
        return group, written | {
            _key(held)
            for held, outcome in group
            if (status := ended.get(_key(held))) and (status == Status.COMPLETED) == (outcome.status is Status.COMPLETED)
        }

    def _mine(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"worker": self.hand.worker}

    async def _split(self, statement: str, group: list[Ended], error: psycopg.Error) -> None:
        """One outcome that the database does not take must not lose the others'."""
        if len(group) > 1:
            middle = len(group) // 2
            await self._write(statement, group[:middle])
            await self._write(statement, group[middle:])
            return
        held, outcome = group[0]
        if outcome.error is not None and outcome != plain(outcome):
            await self._write(statement, [(held, plain(outcome))])
            return
        log.error(
            "the outcome of job %s cannot be stored (%s); its lease will run out",
            held.claim.job_id,
            type(error).__name__,
            extra={"event": "ack.refused", "jobId": held.claim.job_id},
        )
        self.hand.drop(held)

    def _settle(self, held: Held, outcome: Outcome, written: bool, *, tell: bool) -> None:
        self.hand.drop(held)
        if written:
            if outcome.delay is not None:
                self.expect(outcome.delay.total_seconds())
            if tell:
                self.settled(held, outcome)
            return
        self.hand.counters.stale_writes += 1
        log.warning(
            "Job %s: its lease is gone, the outcome (%s) was not written",
            held.claim.job_id,
            outcome.status,
            extra={"event": "lease.lost", "jobId": held.claim.job_id, "status": str(outcome.status)},
        )

    def _tell_shelved(self, group: list[Ended], rows: Sequence[Any]) -> None:
        """A line for each type, however many jobs there are of it; and one for each job that is given up."""
        answers = {(id, lease): (status, delay) for id, lease, status, delay in rows}
        waiting: dict[str, list[float]] = {}
        for held, _ in group:
            status, delay = answers.get(_key(held), (None, None))
            if status == "dlq":
                log.error(
                    "Job %s moved to the dead-letter queue: no handler for %s",
                    held.claim.job_id,
                    held.claim.job_type,
                    extra={"event": "job.dlq", "jobId": held.claim.job_id, "status": status},
                )
            elif delay is not None:
                self.expect(delay.total_seconds())
                waiting.setdefault(held.claim.job_type, []).append(delay.total_seconds())
        for job_type, delays in waiting.items():
            log.warning(
                "no handler here for %s: jobs put back: %d, for up to %.0f s",
                job_type,
                len(delays),
                max(delays),
                extra={"event": "job.no_handler", "jobType": job_type, "jobs": len(delays)},
            )


def _key(held: Held) -> Key:
    return held.claim.id, held.claim.lease


def _row_id(ended: Ended) -> str:
    return ended[0].claim.id


def _leases(group: list[Ended]) -> dict[str, Any]:
    return {"ids": array(held.claim.id for held, _ in group), "leases": array(held.claim.lease for held, _ in group)}


def _acks(group: list[Ended]) -> dict[str, Any]:
    receipts = [outcome.receipt for _, outcome in group]
    return _leases(group) | {"receipts": receipts if any(receipts) else "{}"}


def _failures(group: list[Ended]) -> dict[str, Any]:
    return _leases(group) | {
        "statuses": [str(outcome.status) for _, outcome in group],
        "delays": [outcome.delay for _, outcome in group],
        "errors": [outcome.error for _, outcome in group],
        "stack_traces": [outcome.stack_trace for _, outcome in group],
        "certain": [outcome.certain and not held.claim.uncertain for held, outcome in group],
    }
