"""Writes the outcomes of attempts in groups: while one statement runs, the next group gathers. A
group that the database refuses is halved until the refused outcome stands alone."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Any

from pgqueue.attempt import Outcome
from pgqueue.database.worker_connection import RetryDelay, WorkerConnection
from pgqueue.job import Status
from pgqueue.policy import COMPLETED, plain, unwritten
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.outcome_log import (
    Ended,
    Key,
    RefusedOutcomes,
    acks,
    failures,
    key,
    leases,
    row_id,
)
from pgqueue.worker.refusals import LoopFailure, damaged, divisible, final, words

log = logging.getLogger("pgqueue.worker")

MAX_ACK_BATCH = 1000
"""Outcomes in one statement."""

VALUES: dict[str, Callable[[list[Ended]], dict[str, Any]]] = {
    "ack_jobs": acks,
    "fail_jobs": failures,
    "shelve_jobs": leases,
}
"""Statement -> its parameters."""

PROOF_SECONDS = 10.0
"""If another outcome was written within this time, the database refuses only this one."""

MAX_HOLD_SECONDS = 300.0
"""A refused outcome without such proof is sent again for this long."""


class Acker:
    """Sends one statement at a time on a connection of its own. A slot becomes free when its ack is
    committed, when the database refuses that outcome alone, or when the lease is known to be
    lost."""

    def __init__(
        self,
        connection: WorkerConnection,
        inflight: InFlight,
        breaker: Breaker,
        settled: Callable[[RunningAttempt, Outcome], None],
        expect: Callable[[float], None],
    ) -> None:
        self.connection = connection
        self.inflight = inflight
        self.breaker = breaker
        self.settled = settled
        self.expect = expect
        self._done: deque[Ended] = deque()
        self._notable: deque[Ended] = deque()
        """Completions that the circuit breaker must see before they are written."""
        self._failed: deque[Ended] = deque()
        self._shelved: deque[Ended] = deque()
        self._loop_failures = {
            name: LoopFailure(f"outcomes wait ({name})")
            for name in ("judge", "ack_jobs", "fail_jobs", "shelve_jobs")
        }
        self._to_send_again: list[RefusedOutcomes] = []
        self._held_since: dict[Key, float] = {}
        self._written_at = -MAX_HOLD_SECONDS
        self._wake = asyncio.Event()
        self._busy = False
        self._stopping = False

    def put(self, held: RunningAttempt, outcome: Outcome) -> None:
        if outcome.status is not Status.COMPLETED:
            self._failed.append((held, outcome))
        elif self.breaker.succeeded(held):
            self._notable.append((held, outcome))
        elif held.completed:
            self._settle(held, outcome, True, report=True)
        else:
            self._done.append((held, outcome))
        self._wake.set()

    def shelve(self, held: RunningAttempt) -> None:
        """Put back a job whose type has no handler in this worker."""
        self._shelved.append((held, Outcome(Status.ENQUEUED)))
        self._wake.set()

    @property
    def empty(self) -> bool:
        return not (self._busy or self._waiting)

    @property
    def _waiting(self) -> bool:
        return bool(self._gathered or self._to_send_again)

    @property
    def _gathered(self) -> bool:
        return bool(self._done or self._notable or self._failed or self._shelved)

    @property
    def healthy(self) -> bool:
        """Whether outcomes are written, or there were none to write."""
        return not any(trouble.lasting for trouble in self._loop_failures.values())

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Write outcomes until stopped and empty."""
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
                    group = [queue.popleft() for _ in range(min(len(queue), MAX_ACK_BATCH))]
                    await self._write(statement, await self._judged(group) if judged else group)
                    self._busy = False
            await self._send_again()
            await self._rest()

    async def _rest(self) -> None:
        if self._gathered or (self._stopping and not self._to_send_again):
            return
        due = min((one.due for one in self._to_send_again), default=None)
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _send_again(self) -> None:
        now = time.monotonic()
        due, self._to_send_again = (
            [one for one in self._to_send_again if one.due <= now],
            [one for one in self._to_send_again if one.due > now],
        )
        for one in due:
            self._busy = True
            await self._write(
                one.statement, one.group, tries=one.tries + 1, lost=one.lost, last=one.last
            )
            self._busy = False

    async def _judged(self, group: list[Ended]) -> list[Ended]:
        delay = RetryDelay()
        trouble = self._loop_failures["judge"]
        while True:
            try:
                group = await self.breaker.judge(group)
            except Exception as error:  # noqa: BLE001 - outcomes are written after any error
                trouble.report(error)
                if divisible(error):
                    # The circuit breaker cannot be updated; that must not hold the jobs back.
                    return group
                await asyncio.sleep(delay.next())
            else:
                trouble.recovered()
                return group

    async def _write(
        self,
        statement: str,
        group: list[Ended],
        *,
        tries: int = 0,
        lost: bool = False,
        last: bool = False,
    ) -> None:
        """Write a group; after a lost reply, send it again until the result is known. `last`: an
        outcome that is refused now is dropped."""
        delay = RetryDelay()
        while True:
            try:
                group, written, rows = await self._send(statement, group, lost=lost)
                break
            except Exception as error:  # noqa: BLE001 - the other outcomes are written after any error
                if divisible(error):
                    refused = RefusedOutcomes(statement, group, tries, lost, last)
                    await (
                        self._divide(refused, error)
                        if await self._accepted(statement)
                        else self._later(refused)
                    )
                    return
                lost = True
                self._loop_failures[statement].report(error)
                await asyncio.sleep(delay.next())
        self._loop_failures[statement].recovered()
        if written:
            self._written_at = time.monotonic()
        if statement == "shelve_jobs":
            self._report_shelved(group, rows)
        for held, outcome in group:
            self._settle(held, outcome, key(held) in written, report=statement != "shelve_jobs")

    async def _send(
        self, statement: str, group: list[Ended], *, lost: bool
    ) -> tuple[list[Ended], Set[Key], Sequence[Any]]:
        """Send one statement. Returns the outcomes (a completion by the handler's own transaction
        replaces the handler's), the keys of those written, and the rows."""
        if statement == "ack_jobs":
            group.sort(key=row_id)
            if await self.connection.count(statement, self._mine(acks(group))) == len(group):
                return group, {key(held) for held, _ in group}, ()
            # Fewer rows than outcomes: some leases are lost, or were acked by a statement whose
            # reply was lost.
            return *await self._confirmed(group, frozenset()), ()
        rows = await self.connection.run(statement, self._mine(VALUES[statement](group)))
        written = {(row[0], row[1]) for row in rows}
        if len(written) < len(group) and (lost or any(held.completing for held, _ in group)):
            return *await self._confirmed(group, written), rows
        return group, written, rows

    async def _confirmed(
        self, group: list[Ended], written: Set[Key]
    ) -> tuple[list[Ended], Set[Key]]:
        """Which of the rest were written too: by a statement whose reply was lost, or by the commit
        of a handler's own transaction. The latter completes the job, however the handler ends."""
        rest = [one for one in group if key(one[0]) not in written]
        rows = await self.connection.run("confirm_acks", self._mine(leases(rest)))
        ended: dict[Key, str] = {(id, lease): status for id, lease, status in rows}
        group = [
            (
                held,
                COMPLETED
                if held.completing and ended.get(key(held)) == Status.COMPLETED
                else outcome,
            )
            for held, outcome in group
        ]
        return group, written | {
            key(held)
            for held, outcome in group
            if (status := ended.get(key(held)))
            and (status == Status.COMPLETED) == (outcome.status is Status.COMPLETED)
        }

    def _mine(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"worker": self.inflight.worker}

    async def _accepted(self, statement: str) -> bool:
        """Whether the statement succeeds without any outcome."""
        try:
            await self.connection.run(statement, self._mine(VALUES[statement]([])))
        except Exception as error:  # noqa: BLE001 - it is reported, and tried again
            self._loop_failures[statement].report(error)
            return False
        return True

    async def _later(self, refused: RefusedOutcomes) -> None:
        self._to_send_again.append(refused)

    async def _divide(self, refused: RefusedOutcomes, error: Exception) -> None:
        """Halve a refused group, so that one refused outcome does not lose the others."""
        statement, group = refused.statement, refused.group
        if len(group) > 1:
            for half in (group[: len(group) // 2], group[len(group) // 2 :]):
                await self._write(
                    statement, half, tries=refused.tries, lost=refused.lost, last=refused.last
                )
            return
        held, outcome = group[0]
        if (
            damaged(error)
            and outcome != plain(outcome)
            and (outcome.error is not None or outcome.receipt is not None)
        ):
            await self._write(
                statement, [(held, plain(outcome))], lost=refused.lost, last=refused.last
            )
        elif not (refused.last or self._proven(held, error)):
            self._loop_failures[statement].report(error)
            self.inflight.free_slot(held)
            await self._later(refused)
        elif refused.last or statement == "shelve_jobs":
            self._drop(held, error)
        else:
            await self._write(
                "fail_jobs",
                [(held, unwritten(outcome, words(error)))],
                lost=refused.lost,
                last=True,
            )

    def _proven(self, held: RunningAttempt, error: Exception) -> bool:
        """Whether the database refuses only this outcome and will not accept it later; or whether
        it has been refused for MAX_HOLD_SECONDS."""
        now = time.monotonic()
        since = self._held_since.setdefault(key(held), now)
        if final(error) and (
            damaged(error) or self._stopping or now - self._written_at < PROOF_SECONDS
        ):
            return True
        return final(error) and now - since > MAX_HOLD_SECONDS

    def _drop(self, held: RunningAttempt, error: Exception) -> None:
        log.error(
            "the outcome of job %s cannot be stored; its lease will run out: %s",
            held.claim.job_id,
            words(error),
            extra={
                "event": "ack.refused",
                "jobId": held.claim.job_id,
                "row": held.claim.id,
                "reason": words(error),
            },
        )
        self._held_since.pop(key(held), None)
        self.inflight.drop(held)

    def _settle(
        self, held: RunningAttempt, outcome: Outcome, written: bool, *, report: bool
    ) -> None:
        self._held_since.pop(key(held), None)
        self.inflight.drop(held)
        if written:
            if outcome.delay is not None:
                self.expect(outcome.delay.total_seconds())
            if report:
                self.settled(held, outcome)
            return
        self.inflight.counters.stale_writes += 1
        log.warning(
            "Job %s: its lease is gone, the outcome (%s) was not written",
            held.claim.job_id,
            outcome.status,
            extra={
                "event": "lease.lost",
                "jobId": held.claim.job_id,
                "status": str(outcome.status),
            },
        )

    def _report_shelved(self, group: list[Ended], rows: Sequence[Any]) -> None:
        """A line for each type, however many jobs there are of it; and one for each job that
        moved to the dead-letter queue."""
        answers = {(id, lease): (status, delay) for id, lease, status, delay in rows}
        waiting: dict[str, list[float]] = {}
        for held, _ in group:
            status, delay = answers.get(key(held), (None, None))
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
