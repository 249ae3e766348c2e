"""The doorbell: a producer rings after its commit, coalesced, or with it; only a worker that sleeps
costs a NOTIFY."""

import asyncio
import logging
from typing import Any

from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from pgqueue.database.worker_connection import load

log = logging.getLogger("pgqueue.enqueue.doorbell")


REST = 0.02
"""Seconds between two rings when the last one found nobody asleep."""


class Doorbell:
    """Rings in the background. While one ring is under way the next ones gather; a lost ring costs
    a worker's idle interval."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self.woke_a_worker = False
        """Whether the last ring did: then the next one is likely to, and may ride on its job's
        commit."""
        self._pool = pool
        self._waiting: dict[str, int] = {}
        self._ringing: asyncio.Task[None] | None = None

    def ring(self, queue: str, jobs: int) -> None:
        self._waiting[queue] = self._waiting.get(queue, 0) + jobs
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring_all(), name="ring the doorbell")

    async def _ring_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                woken = await self._ring_once(waiting)
            except Exception as error:  # noqa: BLE001 - the job is stored, and a lost ring costs little
                log.debug("the doorbell was not rung: %s", type(error).__name__)
                woken = 0
            self.woke_a_worker = woken > 0
            if not woken:
                # Nobody slept: under load the next look can wait a little, and serves all that
                # comes meanwhile.
                await asyncio.sleep(REST)

    async def _ring_once(self, waiting: dict[str, int]) -> int:
        woken = 0
        # A cursor of our own: the pool may be somebody else's, with rows of another kind.
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            for queue, jobs in waiting.items():
                await cursor.execute(load("ring_doorbell"), {"queues": [queue], "jobs": jobs})
                row = await cursor.fetchone()
                woken += row[0] if row else 0
        return woken

    async def close(self) -> None:
        """Lets the last ring go out."""
        if self._ringing is not None:
            try:
                await asyncio.wait([self._ringing])
            finally:
                self._ringing.cancel()
