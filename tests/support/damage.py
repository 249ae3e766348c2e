"""Rows that a disk has damaged: a payload whose pieces, stored out of line, are gone."""

import os
from typing import Any

from psycopg import AsyncConnection

from pgqueue.embedded.server import EmbeddedServer
from tests.support.factories import sql, value

Connection = AsyncConnection[Any]


def incompressible(length: int = 200_000) -> str:
    return os.urandom(length // 2).hex()


async def zero_what_is_stored_out_of_line(server: EmbeddedServer) -> None:
    """Of every row of job_logs so far; then the server starts again. End all other connections
    before."""
    async with await AsyncConnection.connect(server.url(), autocommit=True) as connection:
        await sql(connection, "VACUUM (FREEZE) job_logs")
        await sql(connection, "CHECKPOINT")
        path = await value(
            connection,
            (
                "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = "
                "'job_logs'::regclass"
            ),
        )
    server.stop()
    file = server.home / "data" / path
    size = file.stat().st_size
    assert size
    with file.open("r+b") as pages:
        pages.write(b"\0" * size)
    server.start()
