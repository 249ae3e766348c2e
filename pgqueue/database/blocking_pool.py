"""The pool of the blocking client: the rules of pgqueue/database/pool.py over a psycopg_pool that
blocks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg import Connection, Cursor, IsolationLevel
from psycopg.abc import PQGen
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool

from pgqueue.blocking import finished
from pgqueue.database.pool import (
    CONFIGURE,
    IS_READ_COMMITTED,
    UNFIT,
    ReconnectingPool,
    pool_options,
)
from pgqueue.database.session import demand_now, settle_now
from pgqueue.settings import Settings

T = TypeVar("T")


class BlockingLent(Connection[TupleRow]):
    """A connection of the pool, and when it was last known to live (by the monotonic clock)."""

    used_at = 0.0
    deadlines: float | None = None
    """Seconds after which waiting for an answer stops."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, self.deadlines if timeout is None else timeout)


class _Insisting(BlockingLent):
    """As in pgqueue/database/pool.py."""

    @classmethod
    def connect(cls, conninfo: str = "", *, pool: "BlockingPool", **_: Any) -> BlockingLent:  # type: ignore[override]  # psycopg_pool passes its kwargs
        return finished(pool.insist(conninfo))


class BlockingPool(ReconnectingPool[BlockingLent], ConnectionPool[BlockingLent]):
    """`limit` (s) bounds each wait for a connection, and each statement. For many threads; not
    across a fork."""

    def __init__(self, conninfo: str, *, size: int, limit: float, pooled: bool) -> None:
        ReconnectingPool.__init__(self, limit, pooled=pooled)
        self._wanted = threading.Event()
        ConnectionPool.__init__(
            self,
            conninfo,
            connection_class=_Insisting,
            kwargs={"pool": self},
            open=False,
            **pool_options(size, limit),
        )

    def getconn(self, timeout: float | None = None) -> BlockingLent:
        """Raises PoolTimeout, caused by what went wrong when a connection was to be made."""
        return finished(self.lend(self.timeout if timeout is None else timeout))

    async def _take(self, seconds: float) -> BlockingLent:
        return ConnectionPool.getconn(self, seconds)

    async def _replace(self, connection: BlockingLent) -> None:
        connection.close()
        self.putconn(connection)

    async def _ask(self, connection: BlockingLent) -> None:
        self.check_connection(connection)

    async def _drain(self) -> None:
        self.drain()

    def _want(self) -> None:
        self._wanted.set()

    async def _until_wanted(self, seconds: float) -> None:
        self._wanted.clear()
        if not self._waiting_calls and not self._ending:  # it may have been set just before
            self._wanted.wait(seconds)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - it is to block

    async def _made(self, conninfo: str) -> BlockingLent:
        made = BlockingLent.connect(conninfo, **self._options())
        try:
            made.deadlines = min(self.limit, CONFIGURE)
            settle_now(made, self.pooled, self._session())
            if self.pooled:
                demand_now(made)
                _by_transaction(made)
        except BaseException:
            made.close()
            raise
        return made

    def close(self, timeout: float = 5.0) -> None:
        self._ending = True
        self._wanted.set()
        super().close(timeout)


def _by_transaction(connection: BlockingLent) -> None:
    """As in pgqueue/database/pool.py: behind a pooler each statement may need a transaction that
    names its isolation."""
    with Cursor(connection, row_factory=tuple_row) as cursor:
        if cursor.execute(IS_READ_COMMITTED).fetchone() != (True,):
            connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            connection.set_autocommit(False)


@contextmanager
def closed_when_unfit(connection: Connection[Any]) -> Iterator[None]:
    """Close a connection of a pool that leads to a standby, or whose prepared statements no longer
    fit, so that the pool makes another."""
    try:
        yield
    except UNFIT:
        connection.close()
        raise


def open_blocking_pool(settings: Settings, *, timeout: float | None = None) -> BlockingPool:
    """A pool, not yet open. `timeout` (s) bounds each wait for a connection, and each statement."""
    limit = settings.statement_timeout.total_seconds() if timeout is None else timeout
    return BlockingPool(
        settings.conninfo, size=settings.pool_size, limit=limit, pooled=settings.pgbouncer
    )
