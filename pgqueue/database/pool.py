"""A pool whose connections are there as soon as the database is: what is dead is replaced in
milliseconds, and a database that was away is asked again and again until it is back."""

import asyncio
import logging
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from pgqueue.database.errors import AWAY, STALE, STANDBY
from pgqueue.database.reasons import reason
from pgqueue.database.session import settle
from pgqueue.database.worker_connection import BoundedConnection
from pgqueue.errors import SchemaError
from pgqueue.settings import Settings

log = logging.getLogger("pgqueue.database.pool")

IDLE = 1.0
"""Seconds after which a connection that lay idle is asked whether it lives."""

ASK = 0.5
"""Seconds in which it must say so. One that lives but is slower is replaced, which costs a
connection and no call."""

CONFIGURE = 5.0
"""Seconds in which a new connection must take its settings."""

SOONEST, LATEST = 0.02, 0.5
"""Seconds between two attempts to connect while a call waits for the connection."""

AT_REST = 5.0
"""The same while none does."""


class Lent(BoundedConnection[TupleRow]):
    """A connection of a pool, and when it was last known to live (by the monotonic clock)."""

    used_at = 0.0


L = TypeVar("L", bound="Lendable")


class Lendable(Protocol):
    """A connection of either pool."""

    used_at: float
    deadlines: float | None

    @property
    def closed(self) -> bool: ...

    def fileno(self) -> int: ...


class ReconnectingPool(ABC, Generic[L]):
    """The rules of both pools. In the pool that blocks these coroutines never suspend
    (pgqueue/blocking.py)."""

    def __init__(self, limit: float, *, pooled: bool) -> None:
        self.limit = limit
        self.trouble: Exception | None = None
        """Why no connection can be made now."""
        self.pooled = pooled
        self._counting = threading.Lock()
        self._waiting_calls = 0
        self._ending = False
        self._distrusted_at = 0.0
        self._drained = 0.0

    def distrust(self) -> None:
        """Every connection is asked whether it lives before it is lent again."""
        self._distrusted_at = time.monotonic()

    async def lend(self, seconds: float) -> L:
        """A connection that lives. Raises PoolTimeout, caused by what went wrong when a connection
        was to be made."""
        deadline = time.monotonic() + seconds
        while True:
            connection = await self._taken(deadline - time.monotonic())
            try:
                lives = await self._lives(connection, deadline)
            except BaseException:
                await self._replace(connection)
                raise
            if lives:
                return connection
            await self._replace(connection)

    async def _taken(self, seconds: float) -> L:
        self._count(1)
        self._want()
        try:
            return await self._take(seconds)
        except PoolTimeout as error:
            raise error from self.trouble
        finally:
            self._count(-1)

    def _count(self, calls: int) -> None:
        with self._counting:
            self._waiting_calls += calls

    async def _lives(self, connection: L, deadline: float) -> bool:
        # A round trip on every checkout would cost as much as an enqueue. What has lain idle is
        # asked, and what has said something unasked: as a rule that its server ends.
        now = time.monotonic()
        if connection.used_at > max(now - IDLE, self._distrusted_at) and not _has_spoken(
            connection
        ):
            connection.used_at, connection.deadlines = now, self.limit + 1
            return True
        connection.deadlines = max(min(ASK, deadline - now), 0.1)
        try:
            await self._ask(connection)
        except AWAY:
            if not connection.closed and self._drained < now:
                # No answer at all: the other idle connections will not answer either.
                self._drained = time.monotonic()
                await self._drain()
            return False
        connection.deadlines = self.limit + 1
        connection.used_at = time.monotonic()
        return True

    async def insist(self, conninfo: str) -> L:
        """A connection, ready for use, however long it takes. Raises when the pool is closed."""
        wait = SOONEST
        while True:
            try:
                connection = await self._made(conninfo)
            except (*AWAY, SchemaError) as error:
                self._say(error)
                if self._ending:
                    raise
            else:
                self._say(None)
                connection.deadlines = self.limit + 1
                connection.used_at = time.monotonic()
                return connection
            if self._waiting_calls or self._ending:
                await self._sleep(wait)
            else:
                await self._until_wanted(AT_REST)
            wait = min(wait * 2, LATEST)

    def _options(self) -> dict[str, Any]:
        """Of a new connection."""
        return {
            "autocommit": True,
            "prepare_threshold": None if self.pooled else 5,
            "client_encoding": "UTF8",
        }

    def _session(self) -> dict[str, str]:
        """Settings of a new connection."""
        return {"statement_timeout": f"{int(self.limit * 1000)}ms"}

    def _say(self, error: Exception | None) -> None:
        before, self.trouble = self.trouble, error
        if error is not None and (before is None or reason(before) != reason(error)):
            log.debug("no connection to the database: %s", reason(error))
        elif error is None and before is not None:
            log.debug("the database is back")

    @abstractmethod
    async def _take(self, seconds: float) -> L:
        """A connection as psycopg_pool lends it."""

    @abstractmethod
    async def _replace(self, connection: L) -> None:
        """Close it, and have the pool make another."""

    @abstractmethod
    async def _ask(self, connection: L) -> None:
        """One round trip."""

    @abstractmethod
    async def _drain(self) -> None:
        """Replace all connections of the pool."""

    @abstractmethod
    async def _made(self, conninfo: str) -> L:
        """A new connection with its session's settings, or one of AWAY, or SchemaError."""

    @abstractmethod
    def _want(self) -> None:
        """Let `_until_wanted` return."""

    @abstractmethod
    async def _until_wanted(self, seconds: float) -> None:
        """Wait until a call wants a connection."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...


class _Insisting(Lent):
    """Makes psycopg_pool connect by `Pool.insist`, which does not fail. After a failure
    psycopg_pool waits a second, then two, then four, and refuses calls during that time although
    the database is back."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, pool: "Pool", **_: Any) -> Lent:  # type: ignore[override]  # psycopg_pool passes its kwargs
        return await pool.insist(conninfo)


class Pool(ReconnectingPool[Lent], AsyncConnectionPool[Lent]):
    """`limit` (s) bounds each wait for a connection, and each statement."""

    def __init__(self, conninfo: str, *, size: int, limit: float, pooled: bool) -> None:
        ReconnectingPool.__init__(self, limit, pooled=pooled)
        self._wanted = asyncio.Event()
        AsyncConnectionPool.__init__(
            self,
            conninfo,
            connection_class=_Insisting,
            kwargs={"pool": self},
            open=False,
            **pool_options(size, limit),
        )

    async def getconn(self, timeout: float | None = None) -> Lent:  # noqa: ASYNC109 - psycopg_pool's
        """Raises PoolTimeout, caused by what went wrong when a connection was to be made."""
        return await self.lend(self.timeout if timeout is None else timeout)

    async def _take(self, seconds: float) -> Lent:
        return await AsyncConnectionPool.getconn(self, seconds)

    async def _replace(self, connection: Lent) -> None:
        await connection.close()
        await self.putconn(connection)

    async def _ask(self, connection: Lent) -> None:
        await self.check_connection(connection)

    async def _drain(self) -> None:
        await self.drain()

    def _want(self) -> None:
        self._wanted.set()

    async def _until_wanted(self, seconds: float) -> None:
        self._wanted.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _made(self, conninfo: str) -> Lent:
        made = await Lent.connect(conninfo, **self._options())
        try:
            made.deadlines = min(self.limit, CONFIGURE)
            await settle(made, self.pooled, self._session())
            if self.pooled:
                await _by_transaction(made)
        except BaseException:
            await made.close()
            raise
        return made

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - psycopg_pool's
        self._ending = True
        self._wanted.set()
        await super().close(timeout)


def pool_options(size: int, limit: float) -> dict[str, Any]:
    """What psycopg_pool is given for either pool."""
    return {
        "min_size": min(2, size),
        "max_size": size,
        "timeout": limit,
        "max_idle": 300,
        "name": "pgqueue",
    }


def _has_spoken(connection: Lendable) -> bool:
    """Whether there is something to read on an idle connection: its end, as a rule."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


IS_READ_COMMITTED = "SELECT current_setting('default_transaction_isolation') = 'read committed'"


async def _by_transaction(connection: AsyncConnection[Any]) -> None:
    """Behind a pooler a session keeps nothing: where the database's default is another kind of
    transaction, each statement gets one that names its own."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(IS_READ_COMMITTED)
        if await cursor.fetchone() != (True,):
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            await connection.set_autocommit(False)


UNFIT = (STANDBY, *STALE)
"""What a living connection raises that must not be used again."""


@asynccontextmanager
async def closed_when_unfit(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Close a connection of a pool that leads to a standby, or whose prepared statements no longer
    fit, so that the pool makes another."""
    try:
        yield
    except UNFIT:
        await connection.close()
        raise


def open_pool(settings: Settings, *, size: int | None = None, timeout: float | None = None) -> Pool:
    """A pool, not yet open. `timeout` (s) bounds each wait for a connection, and each statement."""
    limit = settings.statement_timeout.total_seconds() if timeout is None else timeout
    return Pool(
        settings.conninfo, size=size or settings.pool_size, limit=limit, pooled=settings.pgbouncer
    )
