"""Retention by workers: every few minutes one of them removes the rows that are past their time."""

import asyncio
import logging
import random
from uuid import UUID

from psycopg import AsyncConnection

from pgqueue.database.errors import AWAY
from pgqueue.database.retention import LOCK, prune
from pgqueue.database.session import connected
from pgqueue.database.worker_connection import load
from pgqueue.settings import Settings

log = logging.getLogger("pgqueue.worker")

INTERVAL_SECONDS = 300.0
MAX_PRUNED_ROWS = 20_000
"""Rows that one turn removes. A longer backlog takes several turns, or `pgqueue prune`."""


async def prune_regularly(settings: Settings) -> None:
    """Prune until cancelled. Of several workers one at a time does."""
    if not settings.auto_prune:
        return
    begin: UUID | None = None
    while True:
        await asyncio.sleep(INTERVAL_SECONDS * random.uniform(0.8, 1.2))
        try:
            async with await connected(settings.conninfo, settings.pgbouncer) as lock:
                begin = await _turn(lock, settings, begin)
        except AWAY as error:
            log.warning("pruning failed (%s); the next turn tries again", type(error).__name__)


async def _turn(
    lock: AsyncConnection[tuple[object, ...]], settings: Settings, begin: UUID | None = None
) -> UUID | None:
    """Where the next turn goes on: rows that cannot be removed must not fill every turn."""
    async with lock.transaction():
        cursor = await lock.execute(load("try_lock"), {"lock": LOCK})
        row = await cursor.fetchone()
        if not row or not row[0]:
            return begin
        async with await connected(settings.conninfo, settings.pgbouncer) as connection:
            done = await prune(connection, settings, whole=False, begin=begin, most=MAX_PRUNED_ROWS)
    if done.jobs or done.tombstones or done.expired:
        log.info(
            "pruned %d jobs and %d tombstones, ended %d jobs after 24 hours in processing",
            done.jobs,
            done.tombstones,
            done.expired,
            extra={"event": "pruned"},
        )
    if done.kept:
        log.warning(
            "%d jobs past their time stay, because they cannot be removed: %s",
            done.kept,
            done.reason,
            extra={"event": "prune.kept"},
        )
    return done.next
