"""Rows to work on, made by the server; and what the table says of how they were worked off."""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from benchmarks.tasks import NOOP

PAYLOAD = {"n": 1, "text": "x" * 176}
"""200 bytes of JSON."""

FILL = """
INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, max_attempts, run_after)
SELECT 'job-' || lpad(n::text, 9, '0'), %(job_type)s, 'user-' || mod(n, 2000), %(payload)s, sha256(n::text::bytea), 'default', 5,
       now() - interval '1 h' + n * interval '1 us' + %(later)s::interval
  FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""

SPAN = """
SELECT count(*) FILTER (WHERE status = 'completed') AS completed, count(*) AS rows,
       extract(epoch FROM max(processed_at) - min(started_at))::float8 AS seconds
  FROM job_logs
"""


async def fill(
    connection: AsyncConnection[Any], count: int, *, first: int = 1, later: str = "0 s", payload: Any = None, settle: bool = True
) -> None:
    """Jobs that are due (or due `later`), in the state in which a table is that has stood for a while."""
    await connection.execute(
        FILL,
        {
            "job_type": NOOP,
            "payload": Jsonb(PAYLOAD if payload is None else payload),
            "first": first,
            "last": first + count - 1,
            "later": later,
        },
    )
    if settle:
        await connection.execute("VACUUM (ANALYZE) job_logs")
        await connection.execute("CHECKPOINT")


async def span(connection: AsyncConnection[Any], expected: int) -> float:
    """Seconds from the first claim to the last ack, by the table. Every job must have been completed."""
    cursor = await connection.execute(SPAN)
    completed, rows, seconds = (await cursor.fetchall())[0]
    if completed != expected:
        raise RuntimeError(f"{completed} of {expected} jobs were completed ({rows} rows)")
    return float(seconds)


async def one(connection: AsyncConnection[Any], text: LiteralString, parameters: Any = None) -> Any:
    """The one value of a statement's one row."""
    cursor = await connection.execute(text, parameters)
    return (await cursor.fetchall())[0][0]
