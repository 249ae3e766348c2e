"""Takes over the table of the old service, which ran on Bull: the table becomes job_logs_bull, and
the jobs that had ended are copied."""

from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from pgqueue.database.migrations import exists
from pgqueue.errors import SchemaError
from pgqueue.masking import ERROR_LENGTH, STACK_LENGTH, clean

BATCH = 500
"""Rows that are cleaned at once."""

NEEDED = {"id", "job_id", "job_type", "user_id", "status", "payload", "attempt_count", "created_at"}


class BullTable:
    """The old service's job_logs, for `pgqueue migrate --adopt`."""

    plan = ("rename job_logs to job_logs_bull", "copy what had ended from job_logs_bull")

    async def rename(self, connection: AsyncConnection[Any]) -> str | None:
        """Renames job_logs with its indexes. Returns None, and does nothing, when the table is
        pgqueue's or there is none. Raises SchemaError."""
        return "renamed job_logs to job_logs_bull" if await _take_over(connection) else None

    async def copy(self, connection: AsyncConnection[Any]) -> str:
        """Copies the jobs that had ended; the others live in the old queue and end there."""
        copied, left = await _copy_rows(connection)
        return (
            f"copied {copied} jobs that had ended; {left} that were waiting or running stay in "
            "job_logs_bull only"
        )


async def _take_over(connection: AsyncConnection[Any]) -> bool:
    if await exists(connection, "job_migrations") or not await exists(connection, "job_logs"):
        return False
    if await exists(connection, "job_logs_bull"):
        raise SchemaError(
            "there is a job_logs_bull already; nothing was changed. Rename or drop it, then try "
            "again"
        )
    missing = NEEDED - await _columns(connection, "job_logs")
    if missing:
        raise SchemaError(
            f"job_logs is not the old service's: it lacks {', '.join(sorted(missing))}; nothing "
            "was changed"
        )
    try:
        await _rename(connection)
    except psycopg.errors.LockNotAvailable:
        raise SchemaError(
            "job_logs is in use; nothing was changed. Stop the old service, then try again"
        ) from None
    return True


async def _rename(connection: AsyncConnection[Any]) -> None:
    # Indexes and constraints keep their names when a table is renamed, and would be in the way of
    # ours.
    cursor = await connection.execute(
        """SELECT i.indexrelid::regclass::text, c.relname
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid = 'job_logs'::regclass::oid"""
    )
    for qualified, name in await cursor.fetchall():
        statement = f"ALTER INDEX {qualified} RENAME TO {{}}"
        await connection.execute(sql.SQL(statement).format(sql.Identifier(f"{name[:58]}_bull")))
    await connection.execute("ALTER TABLE job_logs RENAME TO job_logs_bull")


async def _copy_rows(connection: AsyncConnection[Any]) -> tuple[int, int]:
    """Copies the completed and dead rows of job_logs_bull; times without a zone are UTC. Returns
    how many were copied and how many were not."""
    columns = await _columns(connection, "job_logs_bull")
    created = await _utc(connection, "created_at")
    ended = (
        f"coalesce({await _utc(connection, 'processed_at')}, {created})"
        if "processed_at" in columns
        else created
    )
    error, stack_trace = (
        f"b.{name}::text" if name in columns else "NULL" for name in ("error", "stack_trace")
    )
    # Nothing in this text comes from outside: it is put together from the names above.
    statement = f"""
        INSERT INTO job_logs (id, job_id, job_type, user_id, payload, payload_digest, status,
                              error, stack_trace, attempt_count, max_attempts, queue,
                              created_at, run_after, started_at, processed_at, dead_at)
        SELECT CASE WHEN b.id::text ~ '^[0-9a-fA-F]{{8}}(-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}$'
                    THEN b.id::text::uuid ELSE pgqueue_uuid() END,
               b.job_id::text, b.job_type::text, coalesce(b.user_id::text, 'system'),
               b.payload::jsonb,
               pgqueue_digest(b.job_type::text, coalesce(b.user_id::text, 'system'),
                              b.payload::jsonb),
               b.status::text,
               {error}, {stack_trace},
               least(greatest(b.attempt_count, 0), 1000), least(greatest(b.attempt_count, 5), 1000),
               'default', {created}, {created}, {ended}, {ended},
               CASE WHEN b.status::text = 'dlq' THEN {ended} END
          FROM job_logs_bull b
         WHERE b.status::text IN ('completed', 'dlq') AND b.payload IS NOT NULL
           AND char_length(b.job_id::text) BETWEEN 1 AND 255
           AND char_length(b.job_type::text) BETWEEN 1 AND 255
           AND coalesce(char_length(b.user_id::text), 0) <= 255
           AND position('\\u0000' IN b.payload::text) = 0
        ON CONFLICT DO NOTHING"""  # noqa: S608 - see above: nothing from outside
    cursor = await connection.execute(statement)
    copied = cursor.rowcount
    await _clean_texts(connection)
    cursor = await connection.execute("SELECT count(*) FROM job_logs_bull")
    row = await cursor.fetchone()
    return copied, (row[0] if row else 0) - copied


async def _clean_texts(connection: AsyncConnection[Any]) -> None:
    # The old service stored what the mail server said, addresses and all.
    last = UUID(int=0)
    while True:
        cursor = await connection.execute(
            """SELECT id, error, stack_trace FROM job_logs
                WHERE id > %s AND (error IS NOT NULL OR stack_trace IS NOT NULL)
                ORDER BY id LIMIT %s""",
            [last, BATCH],
        )
        rows = await cursor.fetchall()
        if not rows:
            return
        last = rows[-1][0]
        cleaned = [(one, _error(error), _stack(stack_trace)) for one, error, stack_trace in rows]
        changed = [row for row, old in zip(cleaned, rows, strict=True) if row != old]
        await connection.execute(
            """UPDATE job_logs j SET error = c.error, stack_trace = c.stack_trace
                 FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS c(id, error, stack_trace)
                WHERE j.id = c.id""",
            [[row[column] for row in changed] for column in range(3)],
        )


def _error(text: str | None) -> str | None:
    return None if text is None else clean(text, ERROR_LENGTH)


def _stack(text: str | None) -> str | None:
    return None if text is None else clean(text, STACK_LENGTH, keep="end")


async def _columns(connection: AsyncConnection[Any], table: str) -> set[str]:
    cursor = await connection.execute(
        (
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)::oid AND attnum > 0 "
            "AND NOT attisdropped"
        ),
        [table],
    )
    return {name for (name,) in await cursor.fetchall()}


async def _type(connection: AsyncConnection[Any], column: str) -> str:
    cursor = await connection.execute(
        (
            "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = "
            "'job_logs_bull'::regclass AND attname = %s"
        ),
        [column],
    )
    row = await cursor.fetchone()
    return str(row[0]) if row else ""


async def _utc(connection: AsyncConnection[Any], column: str) -> str:
    naive = await _type(connection, column) == "timestamp without time zone"
    return f"(b.{column} AT TIME ZONE 'UTC')" if naive else f"b.{column}"
