"""The worker's own claimer and acker, one claim and one ack after the other, to see what each
statement takes.

A worker does both at once and so hides the one behind the other.
"""

import asyncio
import time
from typing import Any, Self

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from benchmarks import tasks
from benchmarks.jobs import fill
from pgqueue.attempt import Outcome
from pgqueue.database.adapters import Parameters
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.job import Status
from pgqueue.settings import Settings
from pgqueue.worker.inflight import RunningAttempt
from pgqueue.worker.worker import Worker

BATCH = 500
DONE = Outcome(Status.COMPLETED)


class TimedLink(WorkerConnection):
    """A connection of the engine that writes down how long each statement took, in seconds."""

    times: list[float]

    async def _run(self, statement: str, parameters: Parameters) -> AsyncCursor[TupleRow]:
        began = time.perf_counter()
        cursor = await super()._run(statement, parameters)
        self.times.append(time.perf_counter() - began)
        return cursor


class Loop:
    """With `cursor` off every claim begins at the lane's start, as in a queue that has none. Jobs
    that it stores are numbered from `first`."""

    def __init__(
        self, url: str, *, cursor: bool = True, batch: int = BATCH, first: int = 500_000_000
    ) -> None:
        self.settings = Settings(database_url=url, queues={"default": batch})
        self.batch = batch
        self.cursor = cursor
        self.counts: list[int] = []
        """Jobs of each turn. Some are smaller: a tenth of the room was kept for lanes that the
        claim before did not reach."""
        self.claims, self.acks = self._link("claims", sorting=False), self._link("acks")
        worker = Worker(self.settings, [tasks.noop])
        worker._links |= {"claims": self.claims, "acks": self.acks}
        worker._build({})
        self.claimer = worker.claimer
        self._acker = worker.acker
        self._inflight = worker.inflight
        self._next = first

    def _link(self, name: str, sorting: bool = True) -> TimedLink:
        link = TimedLink(self.settings.conninfo, self.settings, name=name, sorting=sorting)
        link.times = []
        return link

    async def __aenter__(self) -> Self:
        self._acking = asyncio.create_task(self._acker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._acker.stop()
        await self._acking
        await self.claims.close()
        await self.acks.close()

    async def turn(self, *, refill: bool = False) -> int:
        """Takes a batch and acks it; answers how many jobs that were. `refill` first stores as many
        new ones."""
        if refill:
            await self.store(self.batch)
        taken = await self.claim()
        for held in taken:
            self._acker.put(held, DONE)
        while self._inflight.attempts:
            self._inflight.changed.clear()
            await self._inflight.changed.wait()
        self.counts.append(len(taken))
        return len(taken)

    async def claim(self) -> list[RunningAttempt]:
        if not self.cursor:
            self.claimer.lanes.rewind()
        taken, _, _ = await self.claimer._claim()
        return taken

    async def store(self, count: int) -> None:
        await fill(await self.acks.connect(), count, first=self._next, settle=False, since="0 s")
        self._next += count

    def rate(self, since: int = 0) -> float:
        """Jobs per second of claims and acks alone, from a turn on."""
        return sum(self.counts[since:]) / (
            sum(self.claims.times[since:]) + sum(self.acks.times[since:])
        )


def first_claim(url: str, batch: int) -> dict[str, Any]:
    """What a worker's first claim says: one queue, its lanes, each from its start."""
    claimer = Loop(url, batch=batch).claimer
    return dict(claimer._parameters(claimer.lanes.plan({"default": batch})))
