"""What running attempts write: progress, intents (in groups), and transactions that complete their
job."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgqueue.attempt import Claim, Job
from pgqueue.database.adapters import array
from pgqueue.database.errors import AWAY
from pgqueue.database.pool import forsaken_on_a_standby, open_pool
from pgqueue.database.worker_connection import Pace, WorkerConnection, load
from pgqueue.errors import LeaseLost
from pgqueue.policy import written_receipt
from pgqueue.settings import Settings
from pgqueue.worker.inflight import InFlight
from pgqueue.worker.refusals import Trouble, divisible

Intent = tuple[Claim, asyncio.Future[None]]


class AttemptWrites:
    """One statement at a time on one link, but for transactions, which have connections of their
    own."""

    def __init__(self, link: WorkerConnection, inflight: InFlight, settings: Settings) -> None:
        self._link = link
        self._inflight = inflight
        self._settings = settings
        self._turn = asyncio.Lock()
        self._intents: list[Intent] = []
        self._trouble = Trouble("attempts wait for the database to take down what they intend")
        self._intending: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Any] | None = None

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None:
        async with self._turn:
            parameters = self._mine(claim) | {"fraction": fraction, "note": note}
            rows = await self._link.run("save_progress", parameters)
        if not rows:
            raise self._lost(claim)

    async def intend(self, claim: Claim) -> None:
        ended = asyncio.get_running_loop().create_future()
        self._intents.append((claim, ended))
        if self._intending is None or self._intending.done():
            self._intending = asyncio.create_task(self._intend_all(), name="intents")
        await ended

    async def _intend_all(self) -> None:
        """While one statement is under way, the next group gathers."""
        pace = Pace()
        while self._intents:
            group = [(claim, ended) for claim, ended in self._intents if not ended.done()]
            self._intents = []
            try:
                async with self._turn:
                    await self._intend_group(group)
            except AWAY as error:
                # Whoever waits is cancelled when its lease is gone; until then it can still be
                # done.
                self._intents = group + self._intents
                self._trouble.tell(error)
                await asyncio.sleep(pace.grow())
                continue
            pace.reset()
            self._trouble.over()

    async def _intend_group(self, group: list[Intent]) -> None:
        """What the database refuses is narrowed down: the one attempt that it is fails with what
        the server said."""
        try:
            written = set(await self._send_intents(group))
        except Exception as error:
            if not divisible(error):
                raise
            await self._send_intents([])
            if len(group) > 1:
                await self._intend_group(group[: len(group) // 2])
                await self._intend_group(group[len(group) // 2 :])
            elif not group[0][1].done():
                group[0][1].set_exception(error)
            return
        for claim, ended in group:
            if not ended.done():
                ended.set_result(None) if (
                    claim.id,
                    claim.lease,
                ) in written else ended.set_exception(self._lost(claim))

    async def _send_intents(self, group: list[Intent]) -> Sequence[Any]:
        ids, leases = (
            array(claim.id for claim, _ in group),
            array(claim.lease for claim, _ in group),
        )
        return await self._link.run(
            "intend_effects", {"ids": ids, "leases": leases, "worker": self._inflight.worker}
        )

    @asynccontextmanager
    async def transaction(self, job: Job[Any], claim: Claim) -> AsyncIterator[AsyncConnection[Any]]:
        held = self._inflight.held.get(claim.id)
        if held is None or held.claim is not claim or held.lost is not None:
            raise LeaseLost(f"job {claim.job_id} is no longer this attempt's")
        if held.completed:
            raise RuntimeError(
                f"job {claim.job_id} is completed already: one transaction() for each job"
            )
        pool = await self._opened()
        async with (
            pool.connection() as connection,
            forsaken_on_a_standby(connection),
            connection.transaction(),
        ):
            yield connection
            # Last, so that the row is not held while the handler works; from here on the fence
            # decides, and nobody cancels.
            held.completing = True
            parameters = self._mine(claim) | {"receipt": written_receipt(job)}
            cursor = await connection.execute(load("complete_job"), parameters)
            if await cursor.fetchone() is None:
                held.completing = False
                raise self._lost(claim)
        held.completed = True

    async def _opened(self) -> AsyncConnectionPool[Any]:
        if self._pool is None:
            pool = self._pool = open_pool(self._settings)
            await pool.open(wait=False)
        return self._pool

    async def close(self) -> None:
        if self._intending is not None:
            self._intending.cancel()
        if self._pool is not None:
            await self._pool.close(timeout=1)

    def _mine(self, claim: Claim) -> dict[str, Any]:
        return {"id": claim.id, "lease": claim.lease, "worker": self._inflight.worker}

    def _lost(self, claim: Claim) -> LeaseLost:
        self._inflight.counters.stale_writes += 1
        return LeaseLost(f"job {claim.job_id} is no longer this attempt's")
