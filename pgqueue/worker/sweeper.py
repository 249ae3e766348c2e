"""Sweeps behind the claims: stragglers, leases that ran out, the 24-hour rule; and the worker's
heartbeat."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pgqueue.database.adapters import array
from pgqueue.database.worker_connection import Pace, WorkerConnection
from pgqueue.settings import Settings
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claim_rows import Sweep, SweptJob, claim_from_sweep, probe_from, sweep_from
from pgqueue.worker.claimer import Claimer
from pgqueue.worker.inflight import Held, InFlight
from pgqueue.worker.lanes import LAST_ID, START, Lane, Lanes, Place
from pgqueue.worker.refusals import Trouble, divisible
from pgqueue.worker.refused_rows import RefusedRowSearch

log = logging.getLogger("pgqueue.worker")

SLICE = 1000
"""Rows of a lane that one statement reads."""

MOST = 100
"""Jobs that one sweep starts in each queue."""

HURRY = 0.1
"""Seconds between two sweeps while slots are kept for them."""

INTERVAL = 1.0
SHARE = 0.03
"""A sweep takes place about once a second, and in no more than this part of the time."""

LEAP = timedelta(minutes=1)
"""The database's clock has been set, and has not merely gone on, when it is so far ahead
(sweep_jobs.sql says it too)."""

AHEAD = timedelta(days=400)
LOOK_AHEAD_INTERVAL = 15.0
"""Seconds between two sweeps that look for attempts which were started before the clock was set
back, up to AHEAD of now."""

LONGEST_PAUSE = 5.0
"""Seconds: a sweep that took long because a process stood still must not delay the next one by a
minute."""


Swept = Sequence[tuple[int, Lane, Place]]
"""Lanes with their numbers, and from where on."""

WHAT = {
    "rescue": "is rescued",
    "release": "goes back to its paused queue",
    "dlq": "goes to the dead-letter queue",
}


class Sweeper:
    """Reads every lane from its start to the claims' cursor, in slices, with places of its own."""

    def __init__(
        self,
        *,
        connection: WorkerConnection,
        lanes: Lanes,
        inflight: InFlight,
        claimer: Claimer,
        breaker: Breaker,
        start: Callable[[Held], None],
        register: Callable[[WorkerConnection], Any],
        settings: Settings,
        worker: str,
        types: list[str],
        detail: Callable[[], dict[str, int]],
    ) -> None:
        self.connection = connection
        self.lanes = lanes
        self.inflight = inflight
        self.claimer = claimer
        self.breaker = breaker
        self.start = start
        self.register = register
        self.settings = settings
        self.worker = worker
        self.types = types
        self.detail = detail
        self.last_beat = time.monotonic()
        self.turns = 0
        self._places: list[Place] = [START] * len(lanes.all)
        self._unfinished: set[int] = set(range(len(lanes.all)))
        self._lapsed: Counter[str] = Counter()
        """Of each queue: jobs whose turn it is to be started here, and for which there was no
        slot."""
        self.trouble = Trouble("no sweeps")
        self._search = RefusedRowSearch(
            connection=connection,
            lanes=lanes,
            inflight=inflight,
            sweep=self.sweep,
            wake=claimer.doorbell.wake,
        )
        self._clock: tuple[datetime, float] | None = None
        """The database's, and the monotonic one when it was asked for."""
        self._patient_until = 0.0
        self._ahead = True
        self._looks_ahead_at = 0.0
        self._stop = False

    async def run(self) -> None:
        pace = Pace()
        while not self._stop:
            try:
                began = time.monotonic()
                if self.claimer.search.is_set():
                    self.claimer.search.clear()
                    try:
                        await self._search.run()
                    finally:
                        self.claimer.found.set()
                finished = await self._turn()
                self.turns += 1
                took = time.monotonic() - began
                self.last_beat = time.monotonic()
                pace.reset()
                self.trouble.over()
                wait = max(min(took / SHARE, LONGEST_PAUSE), self._interval() if finished else 0.0)
            except Exception as error:  # noqa: BLE001 - sweeps go on after any error
                self.trouble.tell(error)
                wait = pace.grow()
                if divisible(error):
                    self.claimer.search.set()
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.claimer.search.wait()
        except TimeoutError:
            pass

    def stop(self) -> None:
        self._stop = True
        self.claimer.search.set()

    def _interval(self) -> float:
        if any(self.inflight.kept.values()):
            return HURRY
        if self.claimer.resting and self.claimer.doorbell.working:
            return self.settings.idle_interval.total_seconds()
        return min(INTERVAL, self.settings.lease.total_seconds() / 2)

    async def _turn(self) -> bool:
        """One slice of every lane. True when that was the end of all of them."""
        swept = [
            (index, self.lanes.all[index], self._places[index])
            for index in sorted(self._unfinished)
        ]
        seen = await self.sweep(swept)
        await self._probe()
        finished = self._advance(swept, seen)
        for queue in self.inflight.slots:
            if finished or self._lapsed[queue]:
                self.inflight.keep(queue, self._lapsed[queue])
        if finished:
            self._lapsed.clear()
        return finished

    async def sweep(
        self, swept: Swept, size: int = SLICE, end: Place | None = None
    ) -> dict[int, tuple[int, Place]]:
        """One slice of each of these lanes, up to `end`, and what there is to do in it. Answers how
        many rows were seen in which of them, and the place of the last."""
        async with self.claimer.quiet:
            answer, sent_at = await self._sweep(swept, size, end)
            for job in answer.jobs:
                self._act_on(job, swept[job.lane - 1][1], sent_at)
        seen: dict[int, tuple[int, Place]] = {}
        for one in answer.lanes:
            lane = swept[one.lane - 1][1]
            seen[one.lane - 1] = (one.seen, one.place)
            if one.due_left:
                self._leave(lane)
            self._lapsed[lane.queue] += one.lapsed_left
        self._hear(answer.now, sent_at)
        self.breaker.heard(answer.trouble)
        if swept and not answer.registered:
            await self.register(self.connection)
        return seen

    async def _probe(self) -> None:
        """Start a job to see whether its dependency works again, when no other worker does."""
        if not (dependencies := self.breaker.probing) or self.claimer.stopping:
            return
        async with self.claimer.quiet:
            with self.inflight.reserved(1, sweeping=True) as free:
                sent_at = time.monotonic()
                parameters = {
                    "worker": self.worker,
                    "lease": self.settings.lease,
                    "queues": [queue for queue, count in free.items() if count > 0],
                    "dependencies": dependencies,
                }
                rows = await self._run("claim_probe", parameters)
            if not any(free.values()):
                self._lapsed.update(dict.fromkeys(self.inflight.slots, 1))
            for row in rows:
                claim = probe_from(row)
                log.info(
                    "Job %s is to show whether %s works again",
                    claim.job_id,
                    claim.probe,
                    extra={"event": "breaker.probe"},
                )
                self.start(self.inflight.take(claim, sent_at))

    async def _sweep(self, swept: Swept, size: int, end: Place | None) -> tuple[Sweep, float]:
        with self.inflight.reserved(0 if self.claimer.stopping else MOST, sweeping=True) as free:
            sent_at = time.monotonic()
            rows = await self._run("sweep_jobs", self._parameters(swept, free, size, end))
            return sweep_from(rows), sent_at

    async def _run(self, statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
        try:
            return await self.connection.run(statement, parameters)
        except Exception as error:
            if not divisible(error):
                self.claimer.suspect()
            raise

    def _act_on(self, row: SweptJob, lane: Lane, sent_at: float) -> None:
        if row.action != "claim":
            extra = {"event": f"job.{row.action}", "jobId": row.job_id}
            log.warning("Job %s %s: its lease ran out", row.job_id, WHAT[row.action], extra=extra)
        if row.action in ("claim", "rescue"):
            self.start(self.inflight.take(claim_from_sweep(row, lane.queue), sent_at))

    def _leave(self, lane: Lane) -> None:
        # More is due behind the cursor than a sweep may take: the claims fetch it, at their speed.
        self.lanes.rewind([lane])
        self.claimer.doorbell.wake()

    def _hear(self, now: datetime, sent_at: float) -> None:
        if self._clock is not None and now - self._expected(sent_at) > LEAP:
            log.warning(
                (
                    "the database's clock has leapt by %s: no lease runs out until it could be "
                    "extended"
                ),
                now - self._expected(sent_at),
            )
            self._patient_until = sent_at + self.settings.lease.total_seconds()
        self._clock = (now, sent_at)

    def _expected(self, moment: float) -> datetime:
        """What the database's clock should say at a moment of the monotonic one."""
        now, at = self._clock or (START[0], moment)
        return now + timedelta(seconds=moment - at)

    def _advance(self, swept: Swept, seen: dict[int, tuple[int, Place]]) -> bool:
        for position, (index, _, _) in enumerate(swept):
            count, last = seen.get(position, (0, START))
            if count >= SLICE:
                self._places[index] = last
            else:
                self._places[index] = START
                self._unfinished.discard(index)
        if self._unfinished:
            return False
        self._ahead = time.monotonic() >= self._looks_ahead_at
        if self._ahead:
            self._looks_ahead_at = time.monotonic() + LOOK_AHEAD_INTERVAL
        self._unfinished = set(range(len(self.lanes.all)))
        return True

    def _parameters(
        self, swept: Swept, free: dict[str, int], size: int, end: Place | None
    ) -> dict[str, Any]:
        # A resting worker's sweep takes the place of its claims; a starving lane may hold another's
        # expired leases anywhere.
        whole = self.claimer.resting or self._ahead or size < SLICE
        now = time.monotonic()
        ends = [end or (None if whole or lane.starving else lane.cursor) for _, lane, _ in swept]
        lease = self.settings.lease.total_seconds()
        return {
            "worker": self.worker,
            "detail": msgspec.json.encode(self.detail()).decode(),
            "queues": list(free),
            "free": list(free.values()),
            "lane_queues": [lane.queue for _, lane, _ in swept],
            "lane_priorities": array(lane.priority for _, lane, _ in swept),
            "lane_run_afters": [place[0] for _, _, place in swept],
            "lane_ids": array(place[1] for _, _, place in swept),
            "lane_ends": [None if end is None else end[0] for end in ends],
            "lane_end_ids": array(LAST_ID if end is None else end[1] for end in ends),
            "patient": now < self._patient_until,
            "expected": None if self._clock is None else self._expected(now),
            "ahead": AHEAD if self._ahead else timedelta(),
            "slice": size,
            "aside": array(self.inflight.aside.ids),
            "types": self.types,
            "rescue": not self.claimer.stopping
            and self.inflight.may_rescue(time.monotonic(), lease),
            "lease": self.settings.lease,
        }
