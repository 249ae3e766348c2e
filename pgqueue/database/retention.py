"""Removes what is past its time, in small batches; the ids stay known as tombstones."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row, tuple_row

from pgqueue.database.adapters import RawJson
from pgqueue.database.archive import Line, append
from pgqueue.database.errors import survived
from pgqueue.database.loaders import AnyTime
from pgqueue.database.worker_connection import load
from pgqueue.masking import clean
from pgqueue.settings import Settings

BATCH = 500
LOCK = 0x70727565
"""The advisory lock of a worker that prunes by itself."""

WAITS = 10
"""Locks of others that one batch waits for, a tenth of a second each; what is left of it then is
left for the next run."""

IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
START = UUID(int=0)


class Pruned(msgspec.Struct):
    """What a run removed; `kept` are rows past their time that could not be removed, `reason` is
    why the first of them stays. `next` is where the next run may go on, None at the end of the
    table."""

    jobs: int = 0
    tombstones: int = 0
    expired: int = 0
    kept: int = 0
    reason: str | None = None
    next: UUID | None = None


async def prune(
    connection: AsyncConnection[Any],
    settings: Settings,
    *,
    archive: Path | None = None,
    whole: bool = True,
    begin: UUID | None = None,
    most: int | None = None,
    told: Callable[[Pruned], None] = lambda _: None,
) -> Pruned:
    """Remove ended jobs and tombstones past their time, at most `most` rows; end jobs that have
    been processing for 24 hours in queues that no worker serves. `connection` is in autocommit;
    each batch is a transaction of its own. A row that cannot be removed (another table refers to
    it, a trigger refuses, it is damaged) stays, and the others of its batch go. Raises
    ArchiveError.

    archive: a folder; rows are written there as JSON lines, on the disk before they go. A crash in
    between leaves rows that are archived twice, never rows that are not. whole: read the table to
    its end, for rows with random ids (adopted from the old service); otherwise only where
    time-ordered ids can be that old. begin: only rows behind this id; where a run before ended
    because of `most`, its `next`.
    """
    done = Pruned(next=begin or START)
    # A right that is missing is missing for every row: say so before they are tried one by one.
    await connection.execute(load("bury_rows"), {"ids": []})
    while done.next is not None and (most is None or done.jobs + done.kept < most):
        async with connection.transaction():
            await _prune_batch(connection, settings, done, archive, whole)
        told(done)
    done.tombstones = await _repeat(
        connection, "prune_tombstones", {"keep_ids": settings.keep_ids}, most
    )
    done.expired = await _repeat(connection, "bury_forgotten", {}, most)
    told(done)
    return done


async def _prune_batch(
    connection: AsyncConnection[Any],
    settings: Settings,
    done: Pruned,
    archive: Path | None,
    whole: bool,
) -> None:
    await connection.execute(load("bound_locks"))
    await connection.execute(load("check_constraints_now"))
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(
            load("prune_jobs"),
            {
                "after": done.next,
                "keep_completed": settings.keep_completed,
                "keep_dlq": settings.keep_dlq,
                "whole": whole,
                "batch": BATCH,
            },
            binary=True,
        )
        ids = [one for one, _ in await cursor.fetchall()]
    removal = _Removal(connection, archiving=archive is not None)
    await removal.remove(ids)
    if archive is not None:
        append(archive, removal.lines)
    done.jobs += removal.gone
    done.kept += removal.kept
    done.reason = done.reason or removal.reason
    done.next = ids[-1] if len(ids) == BATCH else None


class _Removal:
    """Rows of one batch, in a transaction: those that can be removed are, and of the others it is
    known why not."""

    def __init__(self, connection: AsyncConnection[Any], *, archiving: bool) -> None:
        self.gone = 0
        self.kept = 0
        self.reason: str | None = None
        self.lines: list[Line] = []
        self._connection = connection
        self._archiving = archiving
        self._waits = 0

    async def remove(self, ids: list[UUID]) -> None:
        """All at once; when one is in the way, by halves until it stands alone."""
        if not ids:
            return
        if self._waits >= WAITS:
            self._keep(len(ids), "another transaction holds a lock that their removal needs")
            return
        try:
            async with self._connection.transaction():
                lines = await self._lines(ids) if self._archiving else {}
                gone = await self._bury(ids)
        except (psycopg.Error, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, psycopg.Error) and not (
                survived(error) or isinstance(error, psycopg.DataError)
            ):
                raise
            self._waits += isinstance(error, IN_THE_WAY)
            if len(ids) == 1:
                self._keep(1, str(error).strip().partition("\n")[0] or type(error).__name__)
                return
            half = len(ids) // 2
            await self.remove(ids[:half])
            await self.remove(ids[half:])
            return
        self.gone += len(gone)
        self.lines += [lines[one] for one in ids if one in gone and one in lines]
        if len(gone) < len(ids):
            self._keep(
                len(ids) - len(gone), "a trigger or a policy on job_logs skips their removal"
            )

    def _keep(self, count: int, reason: str) -> None:
        self.kept += count
        self.reason = self.reason or clean(reason, 200)

    async def _bury(self, ids: list[UUID]) -> set[UUID]:
        async with self._connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(load("bury_rows"), {"ids": ids})
            return {one for (one,) in await cursor.fetchall()}

    async def _lines(self, ids: list[UUID]) -> dict[UUID, Line]:
        async with self._connection.cursor(binary=True, row_factory=dict_row) as cursor:
            # As they are stored: a number may be one that Python cannot hold.
            cursor.adapters.register_loader("jsonb", RawJson)
            cursor.adapters.register_loader("timestamptz", AnyTime)
            await cursor.execute(load("read_rows"), {"ids": ids})
            return {row["id"]: _line(row) for row in await cursor.fetchall()}


def _line(row: dict[str, Any]) -> Line:
    for name in ("payload", "history"):
        if row[name] is not None:
            row[name] = msgspec.Raw(row[name])
    return f"{row['created_at']:%Y-%m}", msgspec.json.encode(row, enc_hook=_plain)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise NotImplementedError(type(value).__name__)


async def _repeat(
    connection: AsyncConnection[Any], statement: str, values: dict[str, Any], most: int | None
) -> int:
    done = 0
    while most is None or done < most:
        cursor = await connection.execute(load(statement), {**values, "batch": BATCH})
        done += cursor.rowcount
        if cursor.rowcount < BATCH:
            break
    return done
