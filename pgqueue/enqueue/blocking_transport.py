"""The transport of Client: a pool for many threads, a doorbell rung by a thread, and a new pool in
a process that was forked."""

import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import Cursor
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pgqueue.database.adapters import Parameters
from pgqueue.database.blocking_pool import BlockingLent, BlockingPool, closed_when_unfit
from pgqueue.database.statements import load
from pgqueue.enqueue.doorbell import BlockingDoorbell
from pgqueue.enqueue.joining import Bounded, psycopg_connection
from pgqueue.enqueue.transport import BUSY, Row, Transport, check_usable, has_rows, prepare_cursor
from pgqueue.errors import InvalidJob, Unavailable

FORKED = (
    "this process was forked after the pool was opened, and a pool does not survive a fork: open "
    "pool and client in each process"
)


class Opened:
    """Pool and doorbell of one process."""

    def __init__(self, doorbell: BlockingDoorbell | None) -> None:
        self.lock = threading.Lock()
        self.pool: ConnectionPool[Any] | None = None
        self.doorbell = doorbell
        self.closed = False


class BlockingTransport(Transport):
    """Runs statements on a ConnectionPool, which is opened at the first call in each process: what
    a parent process has opened is left alone after a fork, and not closed there.

    `make`: makes the pool; None when it is the caller's `pool`, which stays open.
    """

    def __init__(
        self,
        timeout: float,
        *,
        doorbell: bool,
        pool: ConnectionPool[Any] | None = None,
        make: Callable[[], ConnectionPool[Any]] | None = None,
    ) -> None:
        super().__init__(timeout)
        self._rings = doorbell
        self._given = pool
        self._make = make
        self._process = os.getpid()
        self._opened: dict[int, Opened] = {}
        """By process."""

    def _of_this_process(self) -> Opened:
        process = os.getpid()
        if (found := self._opened.get(process)) is not None:
            return found
        doorbell = BlockingDoorbell(self.repeat, self.sleep) if self._rings else None
        return self._opened.setdefault(process, Opened(doorbell))

    def open(self) -> ConnectionPool[Any]:
        """The pool of this process. Does not wait for a connection. Raises Unavailable when it
        cannot be used here."""
        opened = self._of_this_process()
        if opened.pool is not None and not opened.closed:
            return opened.pool
        with opened.lock:
            if opened.closed:
                raise Unavailable("the client is closed")
            if opened.pool is None:
                opened.pool = self._new_pool()
            return opened.pool

    def _new_pool(self) -> ConnectionPool[Any]:
        if self._given is not None:
            if os.getpid() != self._process:
                raise Unavailable(FORKED)
            return self._given
        assert self._make is not None  # noqa: S101 - one of both is given
        pool = self._make()
        pool.open(wait=False)
        # A program that ends, or drops the client, without close(): threads that wait for
        # connections would hold it up for seconds.
        weakref.finalize(self, _close_here, pool, os.getpid())
        return pool

    async def close(self) -> None:
        opened = self._of_this_process()
        if opened.doorbell is not None:
            opened.doorbell.close()
        with opened.lock:
            opened.closed = True
        if opened.pool is not None and opened.pool is not self._given:
            opened.pool.close()

    async def enqueue(self, values: Parameters) -> tuple[Row, bool]:
        rows, repeated = await self.enqueue_alone(values)
        return rows[0], repeated

    @property
    def last_ring_woke(self) -> bool:
        doorbell = self._of_this_process().doorbell
        return doorbell is not None and doorbell.woke_a_worker

    def ring(self, queue: str, jobs: int) -> None:
        if (doorbell := self._of_this_process().doorbell) is not None:
            doorbell.ring(queue, jobs)

    @asynccontextmanager
    async def connection(self, deadline: float) -> AsyncIterator[Any]:
        pool = self.open()
        with (
            pool.connection(deadline - time.monotonic()) as connection,
            closed_when_unfit(connection),
        ):
            if isinstance(connection, BlockingLent):
                connection.deadlines = max(deadline - time.monotonic(), 0.01)
                yield connection
            else:
                yield Bounded(connection, deadline)

    async def distrust(self) -> None:
        pool = self.open()
        if isinstance(pool, BlockingPool):
            pool.distrust()
        else:
            pool.check()

    async def sleep(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)  # noqa: ASYNC251 - it is to block

    async def join(self, connection: Any, statement: str, values: Parameters) -> list[Row]:
        deadline = time.monotonic() + self.timeout
        found = psycopg_connection(connection)
        check_usable(found)
        if found.lock.locked():
            # Another thread uses the connection.
            if not found.lock.acquire(timeout=self.timeout):
                raise InvalidJob(BUSY)
            found.lock.release()
        return await self.execute(Bounded(found, deadline), statement, values)

    async def execute(
        self,
        connection: Any,
        statement: str,
        values: Parameters,
        folder: str = "queries",
    ) -> list[Row]:
        # As in AsyncTransport.
        with Cursor(connection, row_factory=dict_row) as cursor:
            prepare_cursor(cursor, statement, values)
            cursor.execute(load(statement, folder), values or None, binary=True)
            return cursor.fetchall() if has_rows(cursor, connection.pgconn) else []


def _close_here(pool: ConnectionPool[Any], process: int) -> None:
    # In a forked process the sockets are its parent's, which goes on using them.
    if os.getpid() == process:
        pool.close(timeout=1)
