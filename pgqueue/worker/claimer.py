"""Claims due jobs and hands them on. Polls; a doorbell only makes it look sooner."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from pgqueue.database.adapters import array
from pgqueue.database.errors import AWAY
from pgqueue.database.worker_connection import Pace, WorkerConnection
from pgqueue.settings import Settings
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claim_rows import PAYLOAD, Row, answer_from, claim_from
from pgqueue.worker.doorbell import Doorbell
from pgqueue.worker.inflight import Held, InFlight
from pgqueue.worker.lanes import Lanes, Room
from pgqueue.worker.refusals import Trouble, divisible, words

log = logging.getLogger("pgqueue.worker")

MOST = 500
"""Jobs in one claim. More would come late to their handlers."""

LONGEST_SEARCH = 30.0
"""Seconds after which claims are tried again although the search for a row in their way has not
ended."""

FIRST = 50
"""Jobs in the first claim, which knows nothing of their payloads yet."""

LOAD = 8_000_000
"""Characters of payloads that one claim should bring: after one of large jobs the next takes
fewer."""

LINGER = 0.005
"""Seconds that a claim waits for more slots to come free, while there is more to be had than
slots."""


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
        start: Callable[[Held], None],
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
        """Claims nothing for now: nothing was due at the last look, or there is no room."""
        self.stopping = False
        self._flowing = False
        self._most = FIRST
        """Jobs that the next claim may take."""
        self.quiet = asyncio.Lock()
        """Held by a sweep from its statement until what it claimed is in hand: what is not in hand
        then was never heard of."""
        self.trouble = Trouble("no claims")
        self.search = asyncio.Event()
        """Claims meet a row that they cannot get past: the next sweep is to find it."""
        self.found = asyncio.Event()
        """That sweep has ended."""
        self._suspicious = False
        self._epoch = 0
        self._patience = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    async def run(self) -> None:
        pace = Pace()
        while not self.stopping:
            try:
                await self._greet()
                await self._turn()
                pace.reset()
            except Exception as error:  # noqa: BLE001 - claims go on after any error
                self.trouble.tell(error)
                if divisible(error) and await self._claims_nothing():
                    await self._searched()
                await self.doorbell.wait(pace.grow())
        if self._suspicious or (self.connection.epoch and not self.connection.connected):
            # The last reply was lost, and perhaps a claim with it.
            with contextlib.suppress(*AWAY):
                await self._greet()

    def expect(self, delay: float) -> None:
        """Something that this worker put back comes due in so many seconds: looks then, if it would
        not look earlier."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + delay
        if self._alarm is not None and loop.time() < self._alarm_at <= moment:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        # What comes due after this one, the claim that follows it will tell. (A timer of uvloop
        # does not always know its time.)
        self._alarm, self._alarm_at = loop.call_at(moment, self.doorbell.wake), moment

    def stop(self) -> None:
        self.stopping = True
        self.inflight.changed.set()
        self.found.set()
        self.doorbell.wake()

    async def _greet(self) -> None:
        """After a reconnect: what was claimed without our hearing of it goes back, and every lane
        is read from its start."""
        await self.connection.connect()
        if self.connection.epoch == self._epoch and not self._suspicious:
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
        self._suspicious = False
        self._epoch = self.connection.epoch

    def suspect(self) -> None:
        """A sweep's reply was lost, and with it perhaps some claims."""
        self._suspicious = True
        self.doorbell.wake()

    async def _release_orphans(self) -> None:
        async with self.quiet:
            held = list(self.inflight.held.values())
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

    async def _searched(self) -> None:
        """A sweep has looked for the row in the way. It needs the slots that a claim would keep to
        itself."""
        self.found.clear()
        self.search.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SEARCH):
                await self.found.wait()

    async def _claims_nothing(self) -> bool:
        """Whether the claim works as such, for no row: else the statement is refused, and not one
        of the rows."""
        try:
            await self.connection.run("claim_jobs", self._parameters([]))
        except Exception as error:  # noqa: BLE001 - it is told, and tried again
            self.trouble.tell(error)
            return False
        return True

    async def _turn(self) -> None:
        await self._room()
        if self.stopping:
            return
        again, next_due = await self._claim_on()
        if again or self.stopping:
            self._patience = 0.0
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
            # The sweep looks at everything that is due, every idle interval; here only what is
            # known to come due counts.
            longest = 60.0
        else:
            most = self.settings.poll_interval.total_seconds()
            self._patience = min(most, max(self._patience * 2, most / 16))
            longest = self._patience * random.uniform(0.8, 1.0)
        return longest if next_due is None else min(longest, max(next_due, 0.0))

    async def _room(self) -> None:
        while not self.stopping and not any(
            self.inflight.free(queue) > 0 for queue in self.inflight.slots
        ):
            self.resting = True
            self.inflight.changed.clear()
            await self.inflight.changed.wait()
        self.resting = False
        if self._flowing:
            await self._gather()

    async def _gather(self) -> None:
        """Where much comes free at once a claim waits a moment for it: one claim of five hundred
        costs less than ten of fifty."""
        enough = {queue: min(MOST, slots // 2) for queue, slots in self.inflight.slots.items()}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self.stopping and not any(
                    self.inflight.free(queue) >= most for queue, most in enough.items()
                ):
                    self.inflight.changed.clear()
                    await self.inflight.changed.wait()

    async def _claim_on(self) -> tuple[bool, float | None]:
        """Claims as long as there is room and more to be had; while the jobs of one claim are
        started, the next is under way. Whether there may be more, and in how many seconds something
        known comes due."""
        taken, again, next_due = await self._claim()
        while True:
            ahead = (
                asyncio.create_task(self._claim())
                if again and not self.stopping and self._roomy
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
    def _roomy(self) -> bool:
        return any(self.inflight.free(queue) >= self._most for queue in self.inflight.slots)

    async def _claim(self) -> tuple[list[Held], bool, float | None]:
        """One claim: what it took, in hand and yet to be started; whether there may be more at
        once, and when."""
        with self.inflight.reserved(self._most) as reserved:
            free = {queue: count for queue, count in reserved.items() if count > 0}
            if not free:
                return [], True, None
            rooms = self.lanes.plan(free)
            sent_at = time.monotonic()
            answer = answer_from(await self.connection.run("claim_jobs", self._parameters(rooms)))
            self.trouble.over()
        lanes = [
            (number, position)
            for number, room in enumerate(rooms)
            for position in range(len(room.lanes))
        ]
        taken = {lanes[lane - 1]: found for lane, found in answer.lanes.items()}
        again = self.lanes.claimed(rooms, taken, answer.now, answer.paused)
        if len(answer.jobs) < sum(count for count, _ in taken.values()):
            # A row that another worker had taken and given back since this claim began was locked
            # and could not be changed.
            self.lanes.rewind([rooms[number].lanes[position] for number, position in taken])
            again = True
        self.breaker.heard(answer.trouble)
        self._weigh(answer.jobs)
        queues = [rooms[number].queue for number, _ in lanes]
        held = [
            self.inflight.take(claim_from(row, queues[row[2] - 1]), sent_at) for row in answer.jobs
        ]
        return held, again, answer.next_due

    def _weigh(self, jobs: Sequence[Row]) -> None:
        """The next claim brings about as much as fits, at most twice as many jobs as this one might
        have."""
        most = min(MOST, self._most * 2)
        if jobs:
            load = sum(len(row[PAYLOAD]) for row in jobs)
            most = min(most, max(1, LOAD * len(jobs) // max(load, 1)))
        self._most = most

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
            "aside": array(self.inflight.aside.ids),
        }
