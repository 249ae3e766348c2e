"""Removes what is past its time, in small batches; the ids stay known as tombstones."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgqueue.database import load
from pgqueue.settings import Settings

BATCH = 500
LOCK = 0x70727565
"""The advisory lock of whoever prunes by itself."""


class Pruned(msgspec.Struct):
    """What a run removed."""

    jobs: int = 0
    tombstones: int = 0
    buried: int = 0


async def prune(
    connection: AsyncConnection[Any],
    settings: Settings,
    *,
    archive: Path | None = None,
    whole: bool = True,
    most: int | None = None,
    told: Callable[[Pruned], None] = lambda _: None,
) -> Pruned:
    """Removes ended jobs and tombstones past their time, at most `most` rows, and buries what has been processing for 24 hours in
    queues that nobody serves. `connection` is in autocommit; each batch is a transaction of its own.

    archive: a folder; each batch is written there as JSON lines, on the disk before its rows go. A crash in between leaves rows
    that are archived twice, never rows that are not.
    whole: read the table to its end, for rows with random ids (adopted from the old service); otherwise only where time-ordered
    ids can be that old.
    """
    done = Pruned()
    after: UUID | None = UUID(int=0)
    while after is not None and (most is None or done.jobs < most):
        async with connection.transaction():
            count, after = await _prune_batch(connection, settings, after, archive, whole)
        done.jobs += count
        told(done)
    done.tombstones = await _repeat(connection, "prune_tombstones", {"keep_ids": settings.keep_ids}, most)
    done.buried = await _repeat(connection, "bury_forgotten", {}, most)
    told(done)
    return done


async def _prune_batch(
    connection: AsyncConnection[Any], settings: Settings, after: UUID, archive: Path | None, whole: bool
) -> tuple[int, UUID | None]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load("prune_jobs"),
            {
                "after": after,
                "keep_completed": settings.keep_completed,
                "keep_dlq": settings.keep_dlq,
                "whole": whole,
                "batch": BATCH,
            },
            binary=True,
        )
        rows = await cursor.fetchall()
    if not rows:
        return 0, None
    if archive is not None:
        _write(archive, rows)
    await connection.execute(load("bury_rows"), {"ids": [row["id"] for row in rows]})
    return len(rows), rows[-1]["id"] if len(rows) == BATCH else None


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Appends the rows to one file per month of creation, and waits for the disk."""
    months: dict[str, list[bytes]] = {}
    for row in rows:
        months.setdefault(f"{row['created_at']:%Y-%m}", []).append(msgspec.json.encode(row, enc_hook=_plain))
    folder.mkdir(parents=True, exist_ok=True)
    for month, lines in months.items():
        # Payloads are personal data: nobody but the owner reads the file.
        descriptor = os.open(folder / f"job_logs-{month}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"\n".join(lines) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise NotImplementedError(type(value).__name__)


async def _repeat(connection: AsyncConnection[Any], statement: str, values: dict[str, Any], most: int | None) -> int:
    done = 0
    while most is None or done < most:
        cursor = await connection.execute(load(statement), {**values, "batch": BATCH})
        done += cursor.rowcount
        if cursor.rowcount < BATCH:
            break
    return done
