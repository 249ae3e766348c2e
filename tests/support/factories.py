"""Rows for tests, and a look at them."""

import itertools
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder
from psycopg.types.json import Jsonb

_numbers = itertools.count(1)

_NOW = timedelta()

_STATUS: dict[str, dict[str, Any]] = {
    "enqueued": {},
    "failed": {"attempt_count": 1, "started_at": _NOW, "error": "it went wrong"},
    "processing": {
        "attempt_count": 1,
        "lease": 1,
        "started_at": _NOW,
        "lease_until": timedelta(seconds=30),
        "locked_by": "w-1",
    },
    "completed": {"attempt_count": 1, "lease": 1, "started_at": _NOW, "processed_at": _NOW},
    "cancelled": {"processed_at": _NOW},
    "dlq": {
        "attempt_count": 5,
        "lease": 5,
        "started_at": _NOW,
        "processed_at": _NOW,
        "dead_at": _NOW,
        "error": "it went wrong",
    },
}
"""What a row in that status must have, as the CHECKs of job_logs want it."""


async def sql(
    connection: AsyncConnection[Any], text: LiteralString, params: Any = None
) -> list[dict[str, Any]]:
    """The rows that a statement returns; none for one that returns nothing."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(text, params)
        return await cursor.fetchall() if cursor.description else []


async def value(connection: AsyncConnection[Any], text: LiteralString, params: Any = None) -> Any:
    """The one value of a statement's one row."""
    (row,) = await sql(connection, text, params)
    (only,) = row.values()
    return only


async def a_job(connection: AsyncConnection[Any], **columns: Any) -> dict[str, Any]:
    """Inserts a row into job_logs past all functions, and returns it.

    What is not given is as a row of that `status` has it. A timedelta in a column of time counts
    from now, by the database's clock: `a_job(connection, status="processing",
    lease_until=timedelta(seconds=-1))` is a lease that ran out a second ago.
    """
    number = next(_numbers)
    named = {
        "job_id": f"job-{number}",
        "job_type": "test.job",
        "user_id": f"user-{number}",
        "payload": {},
        "status": "enqueued",
    }
    return await _insert(
        connection, "job_logs", named | _STATUS[columns.get("status", "enqueued")] | columns
    )


async def a_type(connection: AsyncConnection[Any], **columns: Any) -> dict[str, Any]:
    """Publishes a job type: `a_type(connection, job_type="test.job", limit_count=10,
    limit_window="1 h")`."""
    return await _insert(connection, "job_types", {"job_type": "test.job"} | columns)


async def the_job(connection: AsyncConnection[Any], job_id: str) -> dict[str, Any]:
    """The row as it is now."""
    (row,) = await sql(connection, "SELECT * FROM job_logs WHERE job_id = %s", [job_id])
    return row


async def _insert(
    connection: AsyncConnection[Any], table: str, columns: dict[str, Any]
) -> dict[str, Any]:
    intervals = {"limit_window", "backoff_base", "backoff_cap", "timeout"}
    values: list[Composable] = [
        SQL("clock_timestamp() + {}").format(Placeholder(name))
        if isinstance(content, timedelta) and name not in intervals
        else Placeholder(name)
        for name, content in columns.items()
    ]
    names = SQL(", ").join(map(Identifier, columns))
    statement = SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
        Identifier(table), names, SQL(", ").join(values)
    )
    given = {
        name: Jsonb(content) if isinstance(content, dict | list) else content
        for name, content in columns.items()
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, given)
        row = await cursor.fetchone()
    assert row is not None
    return row
