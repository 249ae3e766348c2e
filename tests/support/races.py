"""What tests of races share: a statement that stands and waits, and one that will not wait."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.settings import Settings
from tests.support.factories import value
from tests.support.scene import until


async def impatient(one: WorkerConnection) -> WorkerConnection:
    """Waits for no lock."""
    await (await one.connect()).execute("SELECT set_config('lock_timeout', '100ms', false)")
    return one


@asynccontextmanager
async def another(
    settings: Settings, *, autocommit: bool = True
) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of somebody else's; without autocommit everything on it is one transaction,
    undone at the end."""
    async with await AsyncConnection.connect(
        settings.conninfo, autocommit=autocommit
    ) as connection:
        yield connection
        if not autocommit:
            await connection.rollback()


@asynccontextmanager
async def waiting(
    watcher: AsyncConnection[Any],
    one: WorkerConnection | AsyncConnection[Any],
    what: Coroutine[Any, Any, Any],
) -> AsyncIterator[asyncio.Task[Any]]:
    """Something on the connection `one` that has come to wait for a lock (or is done, if it has to
    wait for nothing). When the test fails meanwhile, it is not left behind on a connection that is
    about to be closed."""
    backend = await one.connect() if isinstance(one, WorkerConnection) else one
    task = asyncio.create_task(what)

    async def stands() -> bool:
        blocked = await value(
            watcher, "SELECT cardinality(pg_blocking_pids(%s)) > 0", [backend.info.backend_pid]
        )
        return bool(blocked or task.done())

    try:
        await until(stands, what="a statement that waits")
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


GATE = 4711

SLOW_CLOCK = """
CREATE SEQUENCE public.ticks;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF pg_backend_pid() = {backend} AND nextval('public.ticks') >= {tick} THEN
        PERFORM pg_advisory_xact_lock_shared({gate});
    END IF;
    RETURN pg_catalog.now();
END $$;
-- Functions have a search path of their own.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.proconfig::text LIKE '%search_path%' LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = public, pg_catalog', f);
    END LOOP;
END $$"""


@asynccontextmanager
async def slow_clock(
    watcher: AsyncConnection[Any],
    settings: Settings,
    one: WorkerConnection | AsyncConnection[Any],
    tick: int = 1,
) -> AsyncIterator[AsyncConnection[Any]]:
    """To `one` the database's now() is slow: the tick-th time that a statement asks (by each row
    that it looks at) it stands still, between what was read and what is going to be locked; until
    the gate, which this gives, is rolled back."""
    backend = await one.connect() if isinstance(one, WorkerConnection) else one
    await watcher.execute(
        SLOW_CLOCK.format(tick=tick, gate=GATE, backend=backend.info.backend_pid).encode()
    )
    await backend.execute("SET search_path = public, pg_catalog")
    async with another(settings, autocommit=False) as gate:
        await gate.execute("SELECT pg_advisory_xact_lock(%s)", [GATE])
        yield gate
