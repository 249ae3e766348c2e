"""What running attempts write: progress, intents (in groups), and transactions that complete their
job."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool

from pgqueue.attempt import BaseJob, Claim, Job, ThreadJob
from pgqueue.database import blocking_pool
from pgqueue.database.adapters import array
from pgqueue.database.blocking_pool import BlockingPool, open_blocking_pool
from pgqueue.database.errors import AWAY
from pgqueue.database.pool import closed_when_unfit, open_pool
from pgqueue.database.worker_connection import RetryDelay, WorkerConnection, load
from pgqueue.errors import LeaseLost
from pgqueue.policy import written_receipt
from pgqueue.settings import Settings
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.refusals import LoopFailure, divisible

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
        self._trouble = LoopFailure("attempts wait for the database to store their intents")
        self._intending: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Any] | None = None
        self._threads: ThreadAttemptWrites | None = None

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
        delay = RetryDelay()
        while self._intents:
            group = [(claim, ended) for claim, ended in self._intents if not ended.done()]
            self._intents = []
            try:
                async with self._turn:
                    await self._intend_group(group)
            except AWAY as error:
                # A waiting attempt is cancelled when its lease is gone; until then its intent can
                # still be stored.
                self._intents = group + self._intents
                self._trouble.report(error)
                await asyncio.sleep(delay.next())
                continue
            delay.reset()
            self._trouble.recovered()

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
        held = self.begun(claim)
        pool = await self._opened()
        async with (
            pool.connection() as connection,
            closed_when_unfit(connection),
            connection.transaction(),
        ):
            yield connection
            # Last, so that the row is not held while the handler works; from here on the fence
            # decides, and the attempt is not cancelled any more.
            held.completing = True
            cursor = await connection.execute(*self.completion(job, claim))
            self.check_completed(held, await cursor.fetchone())
        held.completed = True

    def begun(self, claim: Claim) -> RunningAttempt:
        """The attempt, before its transaction. Raises LeaseLost, and RuntimeError for a second
        one."""
        held = self.held(claim)
        if held.completed:
            raise RuntimeError(
                f"job {claim.job_id} is completed already: one transaction() for each job"
            )
        return held

    def held(self, claim: Claim) -> RunningAttempt:
        """The attempt. Raises LeaseLost when it has lost its lease, or was handed back."""
        held = self._inflight.attempts.get(claim.id)
        if held is None or held.claim is not claim or held.lost is not None or held.released:
            raise LeaseLost(f"job {claim.job_id} is no longer this attempt's")
        return held

    def completion(self, job: BaseJob[Any], claim: Claim) -> tuple[str, dict[str, Any]]:
        """The statement that completes a job in its handler's transaction, and its parameters."""
        return load("complete_job"), self._mine(claim) | {"receipt": written_receipt(job)}

    def check_completed(self, held: RunningAttempt, row: object) -> None:
        """Raises LeaseLost when that statement found no job."""
        if row is None:
            held.completing = False
            raise self._lost(held.claim)

    def for_threads(self) -> "ThreadAttemptWrites":
        if self._threads is None:
            self._threads = ThreadAttemptWrites(
                self, asyncio.get_running_loop(), lambda: open_blocking_pool(self._settings)
            )
        return self._threads

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
        if self._threads is not None:
            await asyncio.to_thread(self._threads.close)

    def _mine(self, claim: Claim) -> dict[str, Any]:
        return {"id": claim.id, "lease": claim.lease, "worker": self._inflight.worker}

    def _lost(self, claim: Claim) -> LeaseLost:
        self._inflight.counters.stale_writes += 1
        return LeaseLost(f"job {claim.job_id} is no longer this attempt's")


class ThreadAttemptWrites:
    """What plain functions write, from their threads: progress and intents go through the event
    loop of the worker, while the thread waits; transactions have a pool that blocks, opened by the
    first one."""

    def __init__(
        self,
        writes: AttemptWrites,
        loop: asyncio.AbstractEventLoop,
        make_pool: Callable[[], BlockingPool],
    ) -> None:
        self._writes = writes
        self._loop = loop
        self._make_pool = make_pool
        self._pool: BlockingPool | None = None
        self._opening = threading.Lock()
        self._waiting: dict[str, Future[None]] = {}
        """Of each attempt (by the row's id), the write that its thread waits for."""

    def progress(self, claim: Claim, fraction: float, note: str | None) -> None:
        self._wait(claim, self._writes.progress(claim, fraction, note))

    def intend(self, claim: Claim) -> None:
        self._wait(claim, self._writes.intend(claim))

    def _wait(self, claim: Claim, write: Coroutine[Any, Any, None]) -> None:
        waiting = asyncio.run_coroutine_threadsafe(write, self._loop)
        self._waiting[claim.id] = waiting
        try:
            self._writes.held(claim)  # after the line above, or `stop` would miss this write
            waiting.result()
        except CancelledError:
            raise LeaseLost(f"job {claim.job_id} is no longer this attempt's") from None
        finally:
            waiting.cancel()
            self._waiting.pop(claim.id, None)

    def stop(self, claim: Claim) -> None:
        if (waiting := self._waiting.get(claim.id)) is not None:
            waiting.cancel()

    @contextmanager
    def transaction(self, job: ThreadJob[Any], claim: Claim) -> Iterator[Connection[Any]]:
        held = self._writes.begun(claim)
        with (
            self._opened().connection() as connection,
            blocking_pool.closed_when_unfit(connection),
            connection.transaction(),
        ):
            yield connection
            self._writes.held(claim)
            held.completing = True  # as in AttemptWrites.transaction
            cursor = connection.execute(*self._writes.completion(job, claim))
            self._writes.check_completed(held, cursor.fetchone())
        held.completed = True

    def _opened(self) -> BlockingPool:
        with self._opening:
            if self._pool is None:
                pool = self._make_pool()
                pool.open(wait=False)
                self._pool = pool
            return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close(timeout=1)
