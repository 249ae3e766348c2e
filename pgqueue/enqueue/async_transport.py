"""The transport of AsyncClient: a pool that is awaited, group commits, a doorbell rung by a
task."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pgqueue.database.adapters import Parameters
from pgqueue.database.pool import Pool, closed_when_unfit
from pgqueue.database.statements import load
from pgqueue.database.worker_connection import BoundedConnection
from pgqueue.enqueue.doorbell import Doorbell
from pgqueue.enqueue.group_commit import GroupCommit
from pgqueue.enqueue.transport import BUSY, Row, Transport, check_usable, has_rows, prepare_cursor
from pgqueue.errors import InvalidJob, Unavailable


class AsyncTransport(Transport):
    """Runs statements on an AsyncConnectionPool. `owned`: open it at the first call, and close it
    with the client."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], timeout: float, *, doorbell: bool, owned: bool
    ) -> None:
        super().__init__(timeout)
        self.pool = pool
        self.doorbell = Doorbell(self.repeat, self.sleep) if doorbell else None
        self.group_commit = GroupCommit(self.enqueue_alone, partial(self.repeat, "enqueue_group"))
        self._owned = owned
        self._to_open = owned
        self._closed = False

    async def open(self) -> None:
        """Open the client's own pool. Does not wait for a connection. Raises Unavailable when the
        client is closed."""
        if self._closed:
            raise Unavailable("the client is closed")
        if self._to_open:
            await self.pool.open(wait=False)
            self._to_open = False

    async def close(self) -> None:
        await self.group_commit.close()
        if self.doorbell is not None:
            await self.doorbell.close()
        self._closed = True
        if self._owned:
            await self.pool.close()

    async def enqueue(self, values: Parameters) -> tuple[Row, bool]:
        return await self.group_commit.offer(values)

    @property
    def last_ring_woke(self) -> bool:
        return self.doorbell is not None and self.doorbell.woke_a_worker

    def ring(self, queue: str, jobs: int) -> None:
        if self.doorbell is not None:
            self.doorbell.ring(queue, jobs)

    @asynccontextmanager
    async def connection(self, deadline: float) -> AsyncIterator[AsyncConnection[Any]]:
        if self._to_open or self._closed:
            await self.open()
        async with (
            self.pool.connection(deadline - time.monotonic()) as connection,
            closed_when_unfit(connection),
        ):
            left = max(deadline - time.monotonic(), 0.01)
            if isinstance(connection, BoundedConnection):
                connection.deadlines = left
                yield connection
            else:
                async with asyncio.timeout(left):
                    yield connection

    async def distrust(self) -> None:
        if isinstance(self.pool, Pool):
            self.pool.distrust()
        else:
            await self.pool.check()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def join(self, connection: Any, statement: str, values: Parameters) -> list[Row]:
        if not isinstance(connection, AsyncConnection):
            raise InvalidJob(
                f"connection= takes a psycopg.AsyncConnection, not {type(connection).__name__}"
            )
        check_usable(connection)
        deadline = asyncio.get_running_loop().time() + self.timeout
        if connection.lock.locked():
            try:
                async with asyncio.timeout_at(deadline), connection.lock:
                    pass
            except TimeoutError:
                raise InvalidJob(BUSY) from None
        async with asyncio.timeout_at(deadline):
            return await self.execute(connection, statement, values)

    async def execute(
        self, connection: Any, statement: str, values: Parameters, folder: str = "queries"
    ) -> list[Row]:
        # Not the connection's own class of cursor, which may be any; and binary, which no DateStyle
        # or IntervalStyle changes.
        async with AsyncCursor(connection, row_factory=dict_row) as cursor:
            prepare_cursor(cursor, statement, values)
            await cursor.execute(load(statement, folder), values or None, binary=True)
            return await cursor.fetchall() if has_rows(cursor, connection.pgconn) else []
