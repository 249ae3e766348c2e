"""Finds the row that claims and sweeps cannot get past, and puts it aside, so that all other jobs
go on."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from pgqueue.database.adapters import array
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.worker.inflight import InFlight
from pgqueue.worker.lanes import START, Lane, Lanes, Place
from pgqueue.worker.refusals import damaged, divisible, final, words

log = logging.getLogger("pgqueue.worker")

LARGEST_SLICE = 500
ALL_OF_THEM = 10
"""Rows refused one after the other, and none accepted: then it is not the rows."""

PROOF_SECONDS = 10.0
"""Another job that was started so lately shows that it is this row alone which is refused."""


class Suspect(NamedTuple):
    """A row of next_in_lane.sql."""

    id: str
    run_after: datetime
    job_id: str
    lease: int


class Sweep(Protocol):
    """Sweeper.sweep: one slice of these lanes, up to `end`."""

    async def __call__(
        self,
        swept: Sequence[tuple[int, Lane, Place]],
        size: int = ...,
        end: Place | None = None,
    ) -> dict[int, tuple[int, Place]]: ...


class RefusedRowSearch:
    """Sweeps each lane alone, in slices that shrink until one holds only the row that the database
    refuses. `wake` makes the claims look again."""

    def __init__(
        self,
        *,
        connection: WorkerConnection,
        lanes: Lanes,
        inflight: InFlight,
        sweep: Sweep,
        wake: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._lanes = lanes
        self._inflight = inflight
        self._sweep = sweep
        self._wake = wake
        self._refused: list[str] = []
        self._began = 0.0

    async def run(self) -> None:
        """Raises what the sweep raises when that is no row's fault."""
        self._refused, self._began = [], time.monotonic()
        await self._sweep([])
        for index, lane in enumerate(self._lanes.all):
            place: Place | None = START
            size = LARGEST_SLICE
            while place is not None:
                place, size = await self._step(index, lane, place, size)
        self._lanes.rewind()
        self._wake()

    async def _step(
        self, index: int, lane: Lane, place: Place, size: int
    ) -> tuple[Place | None, int]:
        """Where to go on (None: the lane is done), and in slices of what size."""
        suspect = await self._next(lane, place) if size == 1 else None
        end = None if suspect is None else (suspect.run_after, suspect.id)
        try:
            seen = await self._sweep([(index, lane, place)], size, end)
        except Exception as error:
            if not divisible(error):
                raise
            if suspect is None or end is None:
                return place, max(1, size // 8)
            await self._put_aside(suspect, error)
            return end, 8
        count, last = seen.get(0, (0, place))
        if end is not None:
            return end, 8
        return (None if count < size else last), min(size * 4, LARGEST_SLICE)

    async def _next(self, lane: Lane, place: Place) -> Suspect | None:
        rows = await self._connection.run(
            "next_in_lane",
            {
                "queue": lane.queue,
                "priority": lane.priority,
                "run_after": place[0],
                "id": place[1],
                "aside": array(self._inflight.aside.ids),
            },
        )
        return Suspect(*rows[0]) if rows else None

    async def _put_aside(self, suspect: Suspect, error: Exception) -> None:
        if self._inflight.taken_at < self._began:
            self._refused.append(suspect.id)
        if len(self._refused) > ALL_OF_THEM:
            for id in self._refused:
                self._inflight.aside.forget(id)
            raise error
        # The statement as such is still accepted, or this row is not to blame.
        await self._sweep([])
        alone = damaged(error) or time.monotonic() - self._inflight.taken_at < PROOF_SECONDS
        buried = alone and final(error) and await self._bury(suspect, error)
        known = suspect.id in self._inflight.aside
        seconds = self._inflight.aside.put(suspect.id)
        if buried:
            self._inflight.aside.forget(suspect.id)
        log.log(
            logging.DEBUG if known and not buried else logging.ERROR,
            "Job %s (row %s) cannot be worked on, and %s: %s",
            suspect.job_id,
            suspect.id,
            "goes to the dead-letter queue"
            if buried
            else f"is left out for {seconds} s, then longer",
            words(error),
            extra={
                "event": "job.refused",
                "jobId": suspect.job_id,
                "row": suspect.id,
                "reason": words(error),
            },
        )

    async def _bury(self, suspect: Suspect, error: Exception) -> bool:
        values = {
            "id": suspect.id,
            "lease": suspect.lease,
            "reason": f"The database refuses this row: {words(error)}",
        }
        try:
            return bool(await self._connection.run("bury_refused", values))
        except Exception as refused:
            if not divisible(refused):
                raise
            return False
