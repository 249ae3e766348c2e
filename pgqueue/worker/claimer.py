"""Claims due jobs and hands them on. Polls; a doorbell only makes it look sooner."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from pgqueue.database import AWAY, Link, Pace, array
from pgqueue.settings import Settings
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.doorbell import Doorbell
from pgqueue.worker.hand import Hand, Held
from pgqueue.worker.lanes import Lanes, Place, Room
from pgqueue.worker.rows import ClaimRow, claim_from

log = logging.getLogger("pgqueue.worker")

MOST = 500
"""Jobs in one claim. More costs latency and gains nothing (measured; docs/engine.md)."""


class Claimer:
    """Reads the lanes from their cursors on, and starts what it claims with `start`."""

    def __init__(
        self,
        link: Link,
        lanes: Lanes,
        hand: Hand,
        doorbell: Doorbell,
        breaker: Breaker,
        start: Callable[[Held], None],
        settings: Settings,
        worker: str,
    ) -> None:
        self.link = link
        self.lanes = lanes
        self.hand = hand
        self.doorbell = doorbell
        self.breaker = breaker
        self.start = start
        self.settings = settings
        self.worker = worker
        self.resting = False
        """Claims nothing for now: nothing was due at the last look, or there is no room."""
        self.stopping = False
        self.quiet = asyncio.Lock()
        """Held by a sweep from its statement until what it claimed is in hand: what is not in hand then was never heard of."""
        self._suspicious = False
        self._epoch = 0
        self._patience = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        pace = Pace()
        while not self.stopping:
            try:
                await self._greet()
                await self._turn()
                pace.reset()
            except AWAY as error:
                wait = pace.grow()
                log.warning("no claims: the database is away (%s); trying again in %.1f s", type(error).__name__, wait)
                await self.doorbell.wait(wait)

    def expect(self, delay: float) -> None:
        """Something that this worker put back comes due in so many seconds: looks then, if it would not look earlier."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + delay
        if self._alarm is not None and loop.time() < self._alarm.when() <= moment:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        # What comes due after this one, the claim that follows it will tell.
        self._alarm = loop.call_at(moment, self.doorbell.wake)

    def stop(self) -> None:
        self.stopping = True
        self.hand.changed.set()
        self.doorbell.wake()

    async def _greet(self) -> None:
        """After a reconnect: what was claimed without our hearing of it goes back, and every lane is read from its start."""
        await self.link.connect()
        if self.link.epoch == self._epoch and not self._suspicious:
            return
        if self._epoch:
            await self._release_orphans()
        self.lanes.rewind()
        self._suspicious = False
        self._epoch = self.link.epoch

    def suspect(self) -> None:
        """A sweep's reply was lost, and with it perhaps some claims."""
        self._suspicious = True
        self.doorbell.wake()

    async def _release_orphans(self) -> None:
        async with self.quiet:
            held = list(self.hand.held.values())
            rows = await self.link.run(
                "release_orphans",
                {
                    "queues": list(self.hand.slots),
                    "worker": self.worker,
                    "ids": array(one.claim.id for one in held),
                    "leases": array(one.claim.lease for one in held),
                },
            )
        if rows:
            log.warning("gave back %d jobs whose claim was not answered", len(rows), extra={"event": "orphans.released"})

    async def _turn(self) -> None:
        await self._room()
        if self.stopping:
            return
        again, next_due = await self._claim()
        if again or self.stopping:
            self._patience = 0.0
            return
        if self.doorbell.working:
            # Say "asleep", and look once more: whoever commits after this look sees the flag and rings.
            self.doorbell.clear()
            await self.link.run("sleep_worker", {"worker": self.worker})
            again, next_due = await self._claim()
            if again or self.stopping:
                return
        self.resting = True
        await self.doorbell.wait(self._pause(next_due))
        self.resting = False

    def _pause(self, next_due: float | None) -> float:
        if self.doorbell.working:
            # The sweep looks at everything that is due, every idle interval; here only what is known to come due counts.
            longest = 60.0
        else:
            most = self.settings.poll_interval.total_seconds()
            self._patience = min(most, max(self._patience * 2, most / 16))
            longest = self._patience * random.uniform(0.8, 1.0)
        return longest if next_due is None else min(longest, max(next_due, 0.0))

    async def _room(self) -> None:
        while not self.stopping and not any(self.hand.free(queue) > 0 for queue in self.hand.slots):
            self.resting = True
            self.hand.changed.clear()
            await self.hand.changed.wait()
        self.resting = False

    async def _claim(self) -> tuple[bool, float | None]:
        """One claim. Whether there may be more at once, and in how many seconds something known comes due."""
        with self.hand.reserved(MOST) as reserved:
            free = {queue: count for queue, count in reserved.items() if count > 0}
            if not free:
                return True, None
            rooms = self.lanes.plan(free)
            sent_at = time.monotonic()
            rows = await self.link.run("claim_jobs", self._parameters(rooms))
        lanes = [(number, position) for number, room in enumerate(rooms) for position in range(len(room.lanes))]
        jobs, last = _split(rows)
        now = last.run_after
        taken: dict[tuple[int, int], tuple[int, Place]] = {}
        for row in jobs:
            lane = lanes[row.lane - 1]
            taken[lane] = (taken.get(lane, (0, None))[0] + 1, (row.run_after, row.id))
        again = self.lanes.claimed(rooms, taken, now, last.paused)
        self.breaker.heard(last.trouble)
        for row in jobs:
            queue = rooms[lanes[row.lane - 1][0]].queue
            self.start(self.hand.take(claim_from(row, queue), sent_at))
        return again, None if last.next_run_after is None else (last.next_run_after - now).total_seconds()

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
        }


def _split(rows: Sequence[tuple[Any, ...]]) -> tuple[list[ClaimRow], ClaimRow]:
    """The jobs in the order of their lanes, and the row that tells the clock. RETURNING promises no order."""
    *jobs, last = map(ClaimRow._make, rows)
    jobs.sort(key=lambda row: (row.lane, row.run_after, row.id))
    return jobs, last
