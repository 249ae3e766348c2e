"""The client of programs that await. Its verbs are in pgqueue/verbs.py; the client of programs that
block is in pgqueue/sync_client.py. (The words are psycopg's: Client blocks, AsyncClient awaits.)"""

from types import TracebackType
from typing import Any, Self

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgqueue.database.pool import open_pool
from pgqueue.durations import Duration, duration
from pgqueue.enqueue.async_transport import AsyncTransport
from pgqueue.job import DeadFilter as DeadFilter
from pgqueue.settings import Settings, settings_from
from pgqueue.verbs import MOST_AT_ONCE as MOST_AT_ONCE
from pgqueue.verbs import Verbs

Connection = AsyncConnection[Any]


class AsyncClient(Verbs[Connection]):
    """Enqueues jobs and operates the queue. Safe to share between tasks of one event loop.

    Make it with `open` or `from_env`, and use it as an async context manager; a web application may
    keep it for its lifetime and call `close` at the end. Or build it from an open psycopg pool in
    autocommit, which stays its owner's. Never migrates. timeout: how long a verb may wait for a
    connection and an answer; then it raises Unavailable. doorbell: whether sleeping workers are
    woken.
    """

    _transport: AsyncTransport

    def __init__(
        self, pool: AsyncConnectionPool[Any], *, doorbell: bool = True, timeout: Duration = 5.0
    ) -> None:
        seconds = duration(timeout).total_seconds()
        super().__init__(AsyncTransport(pool, seconds, doorbell=doorbell, owned=False))

    @classmethod
    def open(
        cls,
        database: str | Settings | AsyncConnectionPool[Any],
        *,
        timeout: Duration | None = None,
        doorbell: bool | None = None,
    ) -> Self:
        """Return a client for a database URL, for Settings, or for an open psycopg pool. Connects
        at the first call.

        timeout: None takes the setting (PGQUEUE_ENQUEUE_TIMEOUT, 5 s). doorbell: None takes the
        setting (PGQUEUE_DOORBELL, on). Raises SettingsError for a URL that is none.
        """
        if isinstance(database, AsyncConnectionPool):
            return cls(
                database,
                timeout=5.0 if timeout is None else timeout,
                doorbell=doorbell is None or doorbell,
            )
        settings = Settings(database_url=database) if isinstance(database, str) else database
        seconds = duration(settings.enqueue_timeout if timeout is None else timeout).total_seconds()
        client = cls.__new__(cls)
        super(AsyncClient, client).__init__(
            AsyncTransport(
                open_pool(settings, timeout=seconds),
                seconds,
                doorbell=settings.doorbell if doorbell is None else doorbell,
                owned=True,
            )
        )
        return client

    @classmethod
    def from_env(cls) -> Self:
        """Return a client for the settings in the environment (DATABASE_URL, PGQUEUE_*). Raises
        SettingsError with every problem."""
        return cls.open(settings_from())

    @property
    def pool(self) -> AsyncConnectionPool[Any]:
        """The pool of connections."""
        return self._transport.pool

    async def close(self) -> None:
        """Finish the calls under way and the last ring of the doorbell. Closes the pool that the
        client opened; a pool that was given stays open."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
