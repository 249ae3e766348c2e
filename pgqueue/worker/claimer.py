"""Claims due jobs and starts them. Polls the database; a doorbell only shortens the wait."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from pgqueue.database.adapters import array
from pgqueue.database.errors import AWAY
from pgqueue.database.worker_connection import RetryDelay, WorkerConnection
from pgqueue.settings import Settings
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claim_rows import PAYLOAD, Row, answer_from, claim_from
from pgqueue.worker.doorbell import Doorbell
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.lanes import Lanes, Room
from pgqueue.worker.refusals import LoopFailure, divisible, words

log = logging.getLogger("pgqueue.worker")

MAX_CLAIM_BATCH = 500
"""Jobs in one claim. The last of a larger batch would wait too long for their handlers."""

MAX_SEARCH_SECONDS = 30.0
"""Claims are tried again after this time, even if the search for a refused row has not ended."""

FIRST_CLAIM_BATCH = 50
"""Jobs in the first claim, before the size of payloads is known."""

MAX_CLAIM_CHARACTERS = 8_000_000
"""Payload characters that one claim should fetch. After a claim of large jobs the next takes
fewer jobs."""

LINGER_SECONDS = 0.005
"""Time that a claim waits for more free slots while more jobs are due than slots are free."""


class Claimer:
    """Reads the lanes from their cursors on, and starts what it claims with `start`."""

    def __init__(
        self,
        *,
        connection: WorkerConnection,
        lanes: Lanes,
        inflight: InFlight,
        doorbell: Doorbell,
        breaker: Breaker,
        start: Callable[[RunningAttempt], None],
        settings: Settings,
        worker: str,
    ) -> None:
        self.connection = connection
        self.lanes = lanes
        self.inflight = inflight
        self.doorbell = doorbell
        self.breaker = breaker
        self.start = start
        self.settings = settings
        self.worker = worker
        self.resting = False
        """No claim is under way: nothing was due at the last claim, or no slot is free."""
        self.stopping = False
        self._flowing = False
        self._batch = FIRST_CLAIM_BATCH
        """Jobs that the next claim may take."""
        self.reply_lock = asyncio.Lock()
        """Held by a sweep from its statement until the jobs that it claimed are in `inflight`.
        Under this lock, a job that the database counts as ours and `inflight` does not have was
        claimed by a statement whose reply was lost."""
        self.trouble = LoopFailure("no claims")
        self.search_wanted = asyncio.Event()
        """Set when claims fail on a row: the next sweep searches for it."""
        self.search_done = asyncio.Event()
        """Set when that search has ended."""
        self._reply_was_lost = False
        self._epoch = 0
        self._poll_seconds = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    async def run(self) -> None:
        delay = RetryDelay()
        while not self.stopping:
            try:
                await self._recover_lost_replies()
                await self._turn()
                delay.reset()
            except Exception as error:  # noqa: BLE001 - claims go on after any error
                self.trouble.report(error)
                if divisible(error) and await self._claims_nothing():
                    await self._wait_for_search()
                await self.doorbell.wait(delay.next())
        if self._reply_was_lost or (self.connection.epoch and not self.connection.connected):
            # The last reply was lost, possibly that of a claim.
            with contextlib.suppress(*AWAY):
                await self._recover_lost_replies()

    def expect(self, delay: float) -> None:
        """Claim again in `delay` seconds, when a job that this worker put back becomes due; sooner
        if a claim is already planned."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + delay
        if self._alarm is not None and loop.time() < self._alarm_at <= moment:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        # The claim at that time returns when the next job becomes due. (The time is kept here,
        # because a timer of uvloop does not always return its own.)
        self._alarm, self._alarm_at = loop.call_at(moment, self.doorbell.wake), moment

    def stop(self) -> None:
        self.stopping = True
        self.inflight.changed.set()
        self.search_done.set()
        self.doorbell.wake()

    async def _recover_lost_replies(self) -> None:
        """After a reconnect or a lost reply: return jobs that were claimed without this worker
        knowing, and read every lane from its start."""
        await self.connection.connect()
        if self.connection.epoch == self._epoch and not self._reply_was_lost:
            return
        if self._epoch:
            try:
                await self._release_orphans()
            except Exception as error:
                if not divisible(error):
                    raise
                log.warning(
                    "jobs whose claim was not answered wait until their leases run out: %s",
                    words(error),
                )
        self.lanes.rewind()
        self._reply_was_lost = False
        self._epoch = self.connection.epoch

    def reply_lost(self) -> None:
        """Note that a sweep's reply was lost; the sweep may have claimed jobs."""
        self._reply_was_lost = True
        self.doorbell.wake()

    async def _release_orphans(self) -> None:
        async with self.reply_lock:
            held = list(self.inflight.attempts.values())
            rows = await self.connection.run(
                "release_orphans",
                {
                    "queues": list(self.inflight.slots),
                    "worker": self.worker,
                    "ids": array(one.claim.id for one in held),
                    "leases": array(one.claim.lease for one in held),
                },
            )
        if rows:
            log.warning(
                "gave back %d jobs whose claim was not answered",
                len(rows),
                extra={"event": "orphans.released"},
            )

    async def _wait_for_search(self) -> None:
        """Wait until a sweep has searched for the refused row. It needs the slots that a claim
        would reserve."""
        self.search_done.clear()
        self.search_wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_SEARCH_SECONDS):
                await self.search_done.wait()

    async def _claims_nothing(self) -> bool:
        """Whether a claim without lanes succeeds. If not, the database refuses the statement
        itself, not a row."""
        try:
            await self.connection.run("claim_jobs", self._parameters([]))
        except Exception as error:  # noqa: BLE001 - it is reported, and tried again
            self.trouble.report(error)
            return False
        return True

    async def _turn(self) -> None:
        await self._wait_for_slots()
        if self.stopping:
            return
        again, next_due = await self._claim_on()
        if again or self.stopping:
            self._poll_seconds = 0.0
            return
        if self.doorbell.working:
            # Set the flag "asleep", and look once more: a producer that commits after this look
            # sees the flag and rings.
            self.doorbell.clear()
            await self.connection.run("sleep_worker", {"worker": self.worker})
            again, next_due = await self._claim_on()
            if again or self.stopping:
                return
        self.resting = True
        await self.doorbell.wait(self._pause(next_due))
        self.resting = False

    def _pause(self, next_due: float | None) -> float:
        if self.doorbell.working:
            # The sweep reads all due jobs once per idle interval; here only a known due time
            # shortens the wait.
            longest = 60.0
        else:
            most = self.settings.poll_interval.total_seconds()
            self._poll_seconds = min(most, max(self._poll_seconds * 2, most / 16))
            longest = self._poll_seconds * random.uniform(0.8, 1.0)
        return longest if next_due is None else min(longest, max(next_due, 0.0))

    async def _wait_for_slots(self) -> None:
        while not self.stopping and not any(
            self.inflight.free(queue) > 0 for queue in self.inflight.slots
        ):
            self.resting = True
            self.inflight.changed.clear()
            await self.inflight.changed.wait()
        self.resting = False
        if self._flowing:
            await self._linger()

    async def _linger(self) -> None:
        """Wait briefly for more free slots: one claim of 500 jobs costs less than ten claims of
        50."""
        enough = {
            queue: min(MAX_CLAIM_BATCH, slots // 2) for queue, slots in self.inflight.slots.items()
        }
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.stopping and not any(
                    self.inflight.free(queue) >= most for queue, most in enough.items()
                ):
                    self.inflight.changed.clear()
                    await self.inflight.changed.wait()

    async def _claim_on(self) -> tuple[bool, float | None]:
        """Claim while slots are free and more jobs are due. The next claim is sent before the jobs
        of the last one are started.

        Returns whether more jobs may be due, and the seconds until the next known one is."""
        taken, again, next_due = await self._claim()
        while True:
            ahead = (
                asyncio.create_task(self._claim())
                if again and not self.stopping and self._has_slots
                else None
            )
            if ahead is not None:
                await asyncio.sleep(0)
            for held in taken:
                self.start(held)
            self._flowing = again
            if ahead is None:
                return again, next_due
            taken, again, next_due = await ahead

    @property
    def _has_slots(self) -> bool:
        return any(self.inflight.free(queue) >= self._batch for queue in self.inflight.slots)

    async def _claim(self) -> tuple[list[RunningAttempt], bool, float | None]:
        """Send one claim. Returns the attempts, not started yet; whether more jobs may be due now;
        and the seconds until the next known one is."""
        with self.inflight.reserved(self._batch) as reserved:
            free = {queue: count for queue, count in reserved.items() if count > 0}
            if not free:
                return [], True, None
            rooms = self.lanes.plan(free)
            sent_at = time.monotonic()
            answer = answer_from(await self.connection.run("claim_jobs", self._parameters(rooms)))
            self.trouble.recovered()
        lanes = [
            (number, position)
            for number, room in enumerate(rooms)
            for position in range(len(room.lanes))
        ]
        taken = {lanes[lane - 1]: search_done for lane, search_done in answer.lanes.items()}
        again = self.lanes.claimed(rooms, taken, answer.now, answer.paused)
        if len(answer.jobs) < sum(count for count, _ in taken.values()):
            # A row that another worker claimed and returned after this claim began: it was locked,
            # but no longer as this statement's snapshot had seen it, and was not claimed.
            self.lanes.rewind([rooms[number].lanes[position] for number, position in taken])
            again = True
        self.breaker.heard(answer.trouble)
        self._adjust_batch(answer.jobs)
        queues = [rooms[number].queue for number, _ in lanes]
        held = [
            self.inflight.take(claim_from(row, queues[row[2] - 1]), sent_at) for row in answer.jobs
        ]
        return held, again, answer.next_due

    def _adjust_batch(self, jobs: Sequence[Row]) -> None:
        """Set the size of the next claim: payloads of about MAX_CLAIM_CHARACTERS, and at most twice
        as many jobs as this claim."""
        most = min(MAX_CLAIM_BATCH, self._batch * 2)
        if jobs:
            load = sum(len(row[PAYLOAD]) for row in jobs)
            most = min(most, max(1, MAX_CLAIM_CHARACTERS * len(jobs) // max(load, 1)))
        self._batch = most

    def _parameters(self, rooms: Sequence[Room]) -> dict[str, Any]:
        lanes = [(number, lane) for number, room in enumerate(rooms, 1) for lane in room.lanes]
        return {
            "queues": [room.queue for room in rooms],
            "free": [room.free for room in rooms],
            "lane_rooms": array(number for number, _ in lanes),
            "lane_priorities": array(lane.priority for _, lane in lanes),
            "lane_run_afters": [lane.cursor[0] for _, lane in lanes],
            "lane_ids": array(lane.cursor[1] for _, lane in lanes),
            "lease": self.settings.lease,
            "worker": self.worker,
            "aside": array(self.inflight.left_out.ids),
        }
