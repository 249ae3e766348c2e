"""Both clients behind one face: a test that is written once runs on the one that awaits and on the
one that blocks."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pgqueue import AsyncClient, Client, Task
from pgqueue.database.job_types import declarations, publish
from pgqueue.settings import Settings

KINDS = ["awaiting", "blocking"]


async def awaited(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of a call, which blocks a thread or is awaited."""
    if inspect.iscoroutinefunction(call):
        return await call(*args, **options)
    return await asyncio.to_thread(call, *args, **options)


class Either:
    """A client whose verbs are awaited, whichever kind it is."""

    def __init__(self, client: AsyncClient | Client) -> None:
        self.client = client

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            return await awaited(getattr(self.client, verb), *args, **options)

        return call


class Kind:
    """What belongs to one kind of client."""

    def __init__(self, kind: str) -> None:
        self.blocks = kind == "blocking"
        self.client: Any = Client if self.blocks else AsyncClient

    @asynccontextmanager
    async def open(self, database: Any, **options: Any) -> AsyncIterator[Either]:
        client = self.client.open(database, **options)
        try:
            yield Either(client)
        finally:
            await awaited(client.close)

    @asynccontextmanager
    async def connection(self, conninfo: str, **options: Any) -> AsyncIterator[Either]:
        """A caller's own connection of psycopg, closed without a commit."""
        kind: Any = psycopg.Connection if self.blocks else psycopg.AsyncConnection
        connection = await awaited(kind.connect, conninfo, **options)
        try:
            yield Either(connection)
        finally:
            await awaited(connection.close)

    @asynccontextmanager
    async def pool(self, conninfo: str) -> AsyncIterator[Any]:
        """An application's own pool of psycopg_pool."""
        pool: Any = (ConnectionPool if self.blocks else AsyncConnectionPool)(
            conninfo, open=False, min_size=1, kwargs={"autocommit": True}
        )
        await awaited(pool.open)
        try:
            yield pool
        finally:
            await awaited(pool.close)


# For tests without an event loop


def publish_now(database_url: str, settings: Settings, *tasks: Task[Any]) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as mine:
            await publish(mine, declarations(tasks, settings))

    asyncio.run(run())


def value_now(database_url: str, query: LiteralString) -> Any:
    """The one value of a statement's one row, as another session sees it."""
    with psycopg.connect(database_url) as mine:
        row = mine.execute(query).fetchone()
        return row and row[0]
