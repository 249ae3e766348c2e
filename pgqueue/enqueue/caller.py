"""How a client runs a statement: on its pool, again when a connection was lost, within its time; or
on a connection that a caller brings with a transaction of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from pgqueue.database.adapters import Parameters
from pgqueue.database.errors import LOST, REPEATABLE, STALE, survived
from pgqueue.database.loaders import reading
from pgqueue.database.pool import Pool, forsaken_on_a_standby
from pgqueue.database.session import SecondsDumper
from pgqueue.database.worker_connection import BoundedConnection, load
from pgqueue.enqueue.results import in_our_words
from pgqueue.errors import InvalidJob

Connection = AsyncConnection[Any]
NOTHING: Parameters = {}
BUSY = (
    "the connection is in the middle of another command (COPY, or a stream of rows): end that first"
)


async def execute(
    connection: AsyncConnection[Any], statement: str, values: Parameters, folder: str
) -> list[dict[str, Any]]:
    """The rows of sql/<folder>/<statement>.sql, as dicts."""
    # Not the connection's own kind of cursor, which may be any; and binary, which no DateStyle or
    # IntervalStyle changes.
    async with AsyncCursor(connection, row_factory=dict_row) as cursor:
        if any(isinstance(value, timedelta) for value in values.values()):
            cursor.adapters.register_dumper(timedelta, SecondsDumper)
        if not statement.startswith("enqueue"):
            reading(cursor)
        await cursor.execute(load(statement, folder), values or None, binary=True)
        if cursor.description is None and connection.pgconn.pipeline_status == PipelineStatus.OFF:
            return []
        return await cursor.fetchall()


def usable(connection: Any) -> AsyncConnection[Any]:
    """The connection, if a job can be enqueued on it. Raises InvalidJob before anything is sent."""
    if not isinstance(connection, AsyncConnection):
        raise InvalidJob(
            f"connection= takes a psycopg.AsyncConnection, not {type(connection).__name__}"
        )
    if connection.closed:
        raise InvalidJob("the connection is closed: open another one")
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        raise InvalidJob("the transaction of this connection has failed: roll it back first")
    active = (
        status == TransactionStatus.ACTIVE
        and connection.pgconn.pipeline_status == PipelineStatus.OFF
    )
    if active and not connection.lock.locked():
        raise InvalidJob(BUSY)
    return connection


def _mark(error: Exception, lost: bool) -> None:
    error.sent_before = lost  # type: ignore[attr-defined]  # for sent_before() alone


class Caller:
    """Runs the statements of sql/ for a client. No call waits longer than `timeout` (s)."""

    def __init__(self, pool: AsyncConnectionPool[Any], timeout: float) -> None:
        self.pool = pool
        self._timeout = timeout

    async def run(self, statement: str, values: Parameters = NOTHING) -> list[dict[str, Any]]:
        """The rows of sql/queries/<statement>.sql, as dicts."""
        with in_our_words():
            rows, _ = await self._repeat(statement, values)
        return rows

    async def _run_readable(self, statement: str, values: Parameters) -> list[dict[str, Any]]:
        """The same; where a row is damaged, once more and as far as each can be read."""
        try:
            return await self.run(statement, {**values, "damaged": False})
        except psycopg.InternalError:
            return await self.run(statement, {**values, "damaged": True})

    async def _repeat(
        self, statement: str, values: Parameters, folder: str = "queries"
    ) -> tuple[list[dict[str, Any]], bool]:
        """Runs it in a transaction of its own; again after a lost connection, while there is time,
        and after a deadlock. The second value says that it may have been carried out twice; of what
        it raises, `sent_before` does."""
        deadline = time.monotonic() + self._timeout
        lost, undone, pause = False, 0, 0.0
        while True:
            try:
                async with self._lent(deadline) as connection:
                    return await self._execute(connection, statement, values, folder), lost
            except (*REPEATABLE, *STALE) as error:
                # STALE: each connection of the pool may have it; none comes back after this.
                undone += 1
                if undone == 20:
                    _mark(error, lost)
                    raise
                await asyncio.sleep(0)
            except LOST as error:
                if (
                    isinstance(error, PoolTimeout | PoolClosed)
                    or survived(error)
                    or time.monotonic() + pause >= deadline
                ):
                    _mark(error, lost)
                    raise
                lost = True
                await self._distrust()
                await asyncio.sleep(pause)
                pause = min(pause * 2 or 0.01, 0.25)

    @asynccontextmanager
    async def _lent(self, deadline: float) -> AsyncIterator[Connection]:
        """A connection of the pool, until the deadline (by the monotonic clock)."""
        async with (
            self.pool.connection(deadline - time.monotonic()) as connection,
            forsaken_on_a_standby(connection),
        ):
            left = max(deadline - time.monotonic(), 0.01)
            if isinstance(connection, BoundedConnection):
                connection.deadlines = left
                yield connection
            else:
                async with asyncio.timeout(left):
                    yield connection

    async def _distrust(self) -> None:
        """Where one connection was lost the others may be too."""
        if isinstance(self.pool, Pool):
            self.pool.distrust()
        else:
            await self.pool.check()

    async def _join(
        self, connection: Connection, statement: str, values: Parameters
    ) -> list[dict[str, Any]]:
        """Runs it in the caller's transaction."""
        usable(connection)
        deadline = asyncio.get_running_loop().time() + self._timeout
        if connection.lock.locked():
            try:
                async with asyncio.timeout_at(deadline), connection.lock:
                    pass
            except TimeoutError:
                raise InvalidJob(BUSY) from None
        async with asyncio.timeout_at(deadline):
            return await self._execute(connection, statement, values)

    async def _execute(
        self, connection: Connection, statement: str, values: Parameters, folder: str = "queries"
    ) -> list[dict[str, Any]]:
        return await execute(connection, statement, values, folder)
