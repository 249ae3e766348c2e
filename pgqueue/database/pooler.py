"""Finds a pooler in transaction mode between the process and the database, where PGQUEUE_PGBOUNCER
is not set."""

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from pgqueue.errors import SchemaError

TRIES = 3
SECONDS = 2.0
"""In which a session that has its server process to itself is answered."""

ADVICE = (
    "DATABASE_URL leads through a pooler in transaction mode, such as PgBouncer, and "
    "PGQUEUE_PGBOUNCER is off: prepared statements "
    "and settings of a session get lost there. Set PGQUEUE_PGBOUNCER=on and, for leases, "
    "doorbell and migrations, "
    "PGQUEUE_DIRECT_URL to an address past the pooler"
)


async def check_pooler(connection: AsyncConnection[Any], pooled: bool) -> None:
    """SchemaError when statements of one session are carried out by several processes of the
    server, and `pooled` is not set. `connection` is in autocommit. Without a pooler it costs one
    short statement."""
    if pooled:
        return
    before = await _server_process(connection)
    if before == connection.info.backend_pid:
        return
    # A pooler answers in the name of the server. In session mode the process still belongs to
    # this session alone.
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(SECONDS):
                other = await AsyncConnection.connect(_conninfo(connection), prepare_threshold=None)
        except (psycopg.Error, TimeoutError):
            return
        async with other:
            # A transaction keeps a process for itself: as a rule the one that was used last.
            await _server_process(other)
            try:
                async with asyncio.timeout(SECONDS):
                    after = await _server_process(connection)
            except TimeoutError:
                raise SchemaError(ADVICE) from None
            await other.rollback()
        if after != before:
            raise SchemaError(ADVICE)


async def _server_process(connection: AsyncConnection[Any]) -> int:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute("SELECT pg_backend_pid()")
        (row,) = await cursor.fetchall()
    return int(row[0])


def _conninfo(connection: AsyncConnection[Any]) -> str:
    return make_conninfo(connection.info.dsn, password=connection.info.password)
