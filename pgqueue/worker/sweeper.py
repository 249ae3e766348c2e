"""Sweeps: claims due jobs that the claims' cursors have passed, rescues jobs whose lease expired,
applies the 24-hour rule, and writes the worker's heartbeat."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pgqueue.database.adapters import array
from pgqueue.database.worker_connection import RetryDelay, WorkerConnection
from pgqueue.settings import Settings
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claim_rows import Sweep, SweptJob, claim_from_sweep, probe_from, sweep_from
from pgqueue.worker.claimer import Claimer
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.lanes import LAST_ID, START, Lane, Lanes, Place
from pgqueue.worker.refusals import LoopFailure, divisible
from pgqueue.worker.refused_rows import RefusedRowSearch

log = logging.getLogger("pgqueue.worker")

SWEEP_SLICE_ROWS = 1000
"""Rows of a lane that one statement reads."""

MAX_SWEEP_BATCH = 100
"""Jobs that one sweep starts in each queue."""

HURRIED_INTERVAL_SECONDS = 0.1
"""Time between two sweeps while slots are reserved for them."""

SWEEP_INTERVAL_SECONDS = 1.0
MAX_SWEEP_SHARE = 0.03
"""A sweep runs about once a second, and sweeps take no more than this share of the time."""

CLOCK_LEAP = timedelta(minutes=1)
"""A database clock that is so far ahead of the expected time has been set (sweep_jobs.sql has the
same bound)."""

LOOK_AHEAD = timedelta(days=400)
LOOK_AHEAD_INTERVAL_SECONDS = 15.0
"""Time between two sweeps that also read up to LOOK_AHEAD past now, for attempts that were started
before the clock was set back."""

MAX_SWEEP_PAUSE_SECONDS = 5.0
"""Seconds: a sweep that took long because a process stood still must not delay the next one by a
minute."""


Slices = Sequence[tuple[int, Lane, Place]]
"""Lanes with their numbers, and where each is read from."""

WHAT = {
    "rescue": "is rescued",
    "release": "goes back to its paused queue",
    "dlq": "goes to the dead-letter queue",
}


class Sweeper:
    """Reads every lane from its start to the claims' cursor, in slices, with positions of its
    own."""

    def __init__(
        self,
        *,
        connection: WorkerConnection,
        lanes: Lanes,
        inflight: InFlight,
        claimer: Claimer,
        breaker: Breaker,
        start: Callable[[RunningAttempt], None],
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
        """Queue -> jobs with an expired lease for which this sweep had no free slot."""
        self.trouble = LoopFailure("no sweeps")
        self._search = RefusedRowSearch(
            connection=connection,
            lanes=lanes,
            inflight=inflight,
            sweep=self.sweep,
            wake=claimer.doorbell.wake,
        )
        self._clock: tuple[datetime, float] | None = None
        """The database's clock, and the monotonic clock when it was read."""
        self._spare_leases_until = 0.0
        self._looks_ahead = True
        self._looks_ahead_at = 0.0
        self._stop = False

    async def run(self) -> None:
        delay = RetryDelay()
        while not self._stop:
            try:
                began = time.monotonic()
                if self.claimer.search_wanted.is_set():
                    self.claimer.search_wanted.clear()
                    try:
                        await self._search.run()
                    finally:
                        self.claimer.search_done.set()
                finished = await self._turn()
                self.turns += 1
                took = time.monotonic() - began
                self.last_beat = time.monotonic()
                delay.reset()
                self.trouble.recovered()
                wait = max(
                    min(took / MAX_SWEEP_SHARE, MAX_SWEEP_PAUSE_SECONDS),
                    self._interval() if finished else 0.0,
                )
            except Exception as error:  # noqa: BLE001 - sweeps go on after any error
                self.trouble.report(error)
                wait = delay.next()
                if divisible(error):
                    self.claimer.search_wanted.set()
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.claimer.search_wanted.wait()
        except TimeoutError:
            pass

    def stop(self) -> None:
        self._stop = True
        self.claimer.search_wanted.set()

    def _interval(self) -> float:
        if any(self.inflight.kept.values()):
            return HURRIED_INTERVAL_SECONDS
        if self.claimer.resting and self.claimer.doorbell.working:
            return self.settings.idle_interval.total_seconds()
        return min(SWEEP_INTERVAL_SECONDS, self.settings.lease.total_seconds() / 2)

    async def _turn(self) -> bool:
        """Sweep one slice of every lane. Returns whether all lanes have been read to their end."""
        slices = [
            (index, self.lanes.all[index], self._places[index])
            for index in sorted(self._unfinished)
        ]
        seen = await self.sweep(slices)
        await self._probe()
        finished = self._advance(slices, seen)
        for queue in self.inflight.slots:
            if finished or self._lapsed[queue]:
                self.inflight.keep(queue, self._lapsed[queue])
        if finished:
            self._lapsed.clear()
        return finished

    async def sweep(
        self, slices: Slices, size: int = SWEEP_SLICE_ROWS, end: Place | None = None
    ) -> dict[int, tuple[int, Place]]:
        """Sweep one slice of each of these lanes, up to `end`.

        Returns, for each slice that had rows, how many were read and the position of the last."""
        async with self.claimer.reply_lock:
            answer, sent_at = await self._sweep(slices, size, end)
            for job in answer.jobs:
                self._act_on(job, slices[job.lane - 1][1], sent_at)
        seen: dict[int, tuple[int, Place]] = {}
        for one in answer.lanes:
            lane = slices[one.lane - 1][1]
            seen[one.lane - 1] = (one.seen, one.place)
            if one.due_left:
                self._leave_to_claims(lane)
            self._lapsed[lane.queue] += one.lapsed_left
        self._note_clock(answer.now, sent_at)
        self.breaker.heard(answer.trouble)
        if slices and not answer.registered:
            await self.register(self.connection)
        return seen

    async def _probe(self) -> None:
        """Start a job to see whether its dependency works again, when no other worker does."""
        if not (dependencies := self.breaker.probing) or self.claimer.stopping:
            return
        async with self.claimer.reply_lock:
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

    async def _sweep(self, slices: Slices, size: int, end: Place | None) -> tuple[Sweep, float]:
        with self.inflight.reserved(
            0 if self.claimer.stopping else MAX_SWEEP_BATCH, sweeping=True
        ) as free:
            sent_at = time.monotonic()
            rows = await self._run("sweep_jobs", self._parameters(slices, free, size, end))
            return sweep_from(rows), sent_at

    async def _run(self, statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
        try:
            return await self.connection.run(statement, parameters)
        except Exception as error:
            if not divisible(error):
                self.claimer.reply_lost()
            raise

    def _act_on(self, row: SweptJob, lane: Lane, sent_at: float) -> None:
        if row.action != "claim":
            extra = {"event": f"job.{row.action}", "jobId": row.job_id}
            log.warning("Job %s %s: its lease ran out", row.job_id, WHAT[row.action], extra=extra)
        if row.action in ("claim", "rescue"):
            self.start(self.inflight.take(claim_from_sweep(row, lane.queue), sent_at))

    def _leave_to_claims(self, lane: Lane) -> None:
        # More jobs are due behind the cursor than a sweep may take: the claims, which are faster,
        # read the lane again.
        self.lanes.rewind([lane])
        self.claimer.doorbell.wake()

    def _note_clock(self, now: datetime, sent_at: float) -> None:
        if self._clock is not None and now - self._expected(sent_at) > CLOCK_LEAP:
            log.warning(
                (
                    "the database's clock has leapt by %s: no lease runs out until it could be "
                    "extended"
                ),
                now - self._expected(sent_at),
            )
            self._spare_leases_until = sent_at + self.settings.lease.total_seconds()
        self._clock = (now, sent_at)

    def _expected(self, moment: float) -> datetime:
        """The expected time of the database's clock at a moment of the monotonic clock."""
        now, at = self._clock or (START[0], moment)
        return now + timedelta(seconds=moment - at)

    def _advance(self, slices: Slices, seen: dict[int, tuple[int, Place]]) -> bool:
        for position, (index, _, _) in enumerate(slices):
            count, last = seen.get(position, (0, START))
            if count >= SWEEP_SLICE_ROWS:
                self._places[index] = last
            else:
                self._places[index] = START
                self._unfinished.discard(index)
        if self._unfinished:
            return False
        self._looks_ahead = time.monotonic() >= self._looks_ahead_at
        if self._looks_ahead:
            self._looks_ahead_at = time.monotonic() + LOOK_AHEAD_INTERVAL_SECONDS
        self._unfinished = set(range(len(self.lanes.all)))
        return True

    def _parameters(
        self, slices: Slices, free: dict[str, int], size: int, end: Place | None
    ) -> dict[str, Any]:
        # While no claims run, sweeps replace them and read whole lanes. A starving lane may hold
        # expired leases of other workers anywhere.
        whole = self.claimer.resting or self._looks_ahead or size < SWEEP_SLICE_ROWS
        now = time.monotonic()
        ends = [end or (None if whole or lane.starving else lane.cursor) for _, lane, _ in slices]
        lease = self.settings.lease.total_seconds()
        return {
            "worker": self.worker,
            "detail": msgspec.json.encode(self.detail()).decode(),
            "queues": list(free),
            "free": list(free.values()),
            "lane_queues": [lane.queue for _, lane, _ in slices],
            "lane_priorities": array(lane.priority for _, lane, _ in slices),
            "lane_run_afters": [place[0] for _, _, place in slices],
            "lane_ids": array(place[1] for _, _, place in slices),
            "lane_ends": [None if end is None else end[0] for end in ends],
            "lane_end_ids": array(LAST_ID if end is None else end[1] for end in ends),
            "patient": now < self._spare_leases_until,
            "expected": None if self._clock is None else self._expected(now),
            "ahead": LOOK_AHEAD if self._looks_ahead else timedelta(),
            "slice": size,
            "aside": array(self.inflight.left_out.ids),
            "types": self.types,
            "rescue": not self.claimer.stopping
            and self.inflight.may_rescue(time.monotonic(), lease),
            "lease": self.settings.lease,
        }
