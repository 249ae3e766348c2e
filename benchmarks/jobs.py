"""Rows to work on, made by the server; and what the table says of how they were worked off."""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from benchmarks.tasks import NOOP

PAYLOAD = {"n": 1, "text": "x" * 176}
"""200 bytes of JSON."""

FILL = """
INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, max_attempts,
  run_after,
                      status, attempt_count, lease, started_at, processed_at)
SELECT 'job-' || lpad(n::text, 9, '0'), %(job_type)s, 'user-' || mod(n, 2000), %(payload)s,
  sha256(n::text::bytea), 'default', 5,
       clock_timestamp() - %(since)s::interval + (n - %(first)s) * interval '1 us',
       CASE WHEN %(done)s THEN 'completed' ELSE 'enqueued' END, %(done)s::int, %(done)s::int,
       CASE WHEN %(done)s THEN now() END, CASE WHEN %(done)s THEN now() END
  FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""

SPAN = """
SELECT count(*) FILTER (WHERE status = 'completed') AS completed, count(*) AS rows,
       extract(epoch FROM max(processed_at) - min(started_at))::float8 AS seconds
  FROM job_logs
"""


async def fill(
    connection: AsyncConnection[Any],
    count: int,
    *,
    first: int = 1,
    since: str = "1 h",
    payload: Any = None,
    job_type: str = NOOP,
    done: bool = False,
    settle: bool = True,
) -> None:
    """Jobs that have been due for a while, or are not yet ("-1 day"), or are `done`. `settle`
    leaves the table as one is that has stood for a while."""
    values = {
        "job_type": job_type,
        "first": first,
        "last": first + count - 1,
        "since": since,
        "done": done,
    }
    await connection.execute(
        FILL, values | {"payload": Jsonb(PAYLOAD if payload is None else payload)}
    )
    if settle:
        await settled(connection)


async def settled(connection: AsyncConnection[Any]) -> None:
    await connection.execute("VACUUM (ANALYZE) job_logs")
    await connection.execute("CHECKPOINT")


async def span(connection: AsyncConnection[Any], expected: int) -> float:
    """Seconds from the first claim to the last ack, by the table. Every job must have been
    completed."""
    cursor = await connection.execute(SPAN)
    completed, rows, seconds = (await cursor.fetchall())[0]
    if completed != expected:
        raise RuntimeError(f"{completed} of {expected} jobs were completed ({rows} rows)")
    return float(seconds)


async def one(connection: AsyncConnection[Any], text: LiteralString, parameters: Any = None) -> Any:
    """The one value of a statement's one row."""
    cursor = await connection.execute(text, parameters)
    return (await cursor.fetchall())[0][0]
