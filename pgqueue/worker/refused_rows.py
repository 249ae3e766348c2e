"""Finds the row that the database refuses to change, and leaves it out of claims and sweeps, so
that all other jobs continue."""

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

MAX_SLICE_ROWS = 500
MAX_REFUSED_IN_A_ROW = 10
"""After this many rows in a row were refused and none accepted, the cause is not a row."""

PROOF_SECONDS = 10.0
"""If another job was claimed within this time, the database refuses only this row."""


class LaneRow(NamedTuple):
    """A row of next_in_lane.sql."""

    id: str
    run_after: datetime
    job_id: str
    lease: int


class Sweep(Protocol):
    """Sweeper.sweep: one slice of these lanes, up to `end`."""

    async def __call__(
        self,
        slices: Sequence[tuple[int, Lane, Place]],
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
        """Search all lanes. Raises the error of the sweep when no row causes it."""
        self._refused, self._began = [], time.monotonic()
        await self._sweep([])
        for index, lane in enumerate(self._lanes.all):
            place: Place | None = START
            size = MAX_SLICE_ROWS
            while place is not None:
                place, size = await self._step(index, lane, place, size)
        self._lanes.rewind()
        self._wake()

    async def _step(
        self, index: int, lane: Lane, place: Place, size: int
    ) -> tuple[Place | None, int]:
        """Sweep one slice. Returns where the next one begins (None at the lane's end) and its
        size."""
        suspect = await self._next(lane, place) if size == 1 else None
        end = None if suspect is None else (suspect.run_after, suspect.id)
        try:
            seen = await self._sweep([(index, lane, place)], size, end)
        except Exception as error:
            if not divisible(error):
                raise
            if suspect is None or end is None:
                return place, max(1, size // 8)
            await self._leave_out(suspect, error)
            return end, 8
        count, last = seen.get(0, (0, place))
        if end is not None:
            return end, 8
        return (None if count < size else last), min(size * 4, MAX_SLICE_ROWS)

    async def _next(self, lane: Lane, place: Place) -> LaneRow | None:
        rows = await self._connection.run(
            "next_in_lane",
            {
                "queue": lane.queue,
                "priority": lane.priority,
                "run_after": place[0],
                "id": place[1],
                "aside": array(self._inflight.left_out.ids),
            },
        )
        return LaneRow(*rows[0]) if rows else None

    async def _leave_out(self, suspect: LaneRow, error: Exception) -> None:
        if self._inflight.taken_at < self._began:
            self._refused.append(suspect.id)
        if len(self._refused) > MAX_REFUSED_IN_A_ROW:
            for id in self._refused:
                self._inflight.left_out.forget(id)
            raise error
        # Raises if the database now refuses the statement itself: then this row is not the cause.
        await self._sweep([])
        alone = damaged(error) or time.monotonic() - self._inflight.taken_at < PROOF_SECONDS
        dead_lettered = alone and final(error) and await self._dead_letter(suspect, error)
        known = suspect.id in self._inflight.left_out
        seconds = self._inflight.left_out.put(suspect.id)
        if dead_lettered:
            self._inflight.left_out.forget(suspect.id)
        log.log(
            logging.DEBUG if known and not dead_lettered else logging.ERROR,
            "Job %s (row %s) cannot be worked on, and %s: %s",
            suspect.job_id,
            suspect.id,
            "goes to the dead-letter queue"
            if dead_lettered
            else f"is left out for {seconds} s, then longer",
            words(error),
            extra={
                "event": "job.refused",
                "jobId": suspect.job_id,
                "row": suspect.id,
                "reason": words(error),
            },
        )

    async def _dead_letter(self, suspect: LaneRow, error: Exception) -> bool:
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
