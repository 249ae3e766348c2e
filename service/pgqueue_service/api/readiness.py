"""The API process and the database: the process publishes its job types, reports that it is alive,
and checks whether it can work."""

import asyncio
import contextlib
import logging
import time
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from pgqueue import __version__
from pgqueue.database.adapters import Parameters
from pgqueue.database.errors import AWAY, LOST, survived
from pgqueue.database.job_types import publish
from pgqueue.database.migrations import check_schema
from pgqueue.database.pool import Pool, closed_when_unfit
from pgqueue.database.pooler import check_pooler
from pgqueue.database.processes import Run, entry, process_name, register, retire
from pgqueue.database.reasons import reason
from pgqueue.database.worker_connection import RetryDelay, load
from pgqueue.errors import SchemaError
from pgqueue.task import Declaration
from pgqueue_service.api.deadlines import Deadlines

log = logging.getLogger("pgqueue_service.api.readiness")

BEAT = 5.0
"""Seconds between two heartbeats. A process without a heartbeat for 30 seconds counts as gone."""

FRESH = 1.0
"""Seconds for which an answer to `question` is used again, without asking the database."""


class Readiness:
    """`problem` is a sentence while the database or its schema is not as it should be. `unusable`:
    nothing must be written."""

    def __init__(
        self, pool: Pool, declared: list[Declaration], deadlines: Deadlines, limit: float
    ) -> None:
        self.problem: str | None = "The database has not answered yet"
        self.unusable = False
        self.admin_types = frozenset(one.job_type for one in declared if one.admin)
        self.processes = 1
        """API processes that are alive, this one among them."""
        self._pool = pool
        self._declared = declared
        self._deadlines = deadlines
        self._limit = limit
        self._name = process_name()
        self._published = False
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def question(self) -> str | None:
        """What is wrong now; None when nothing is. A problem found earlier is checked again
        first."""
        if self._asking is None and (
            self.problem is not None or time.monotonic() - self._asked_at > FRESH
        ):
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self.beat(), name="readiness")
            self._asking.add_done_callback(self._asked)
        if self._asking is not None:
            await asyncio.wait([self._asking])
        return self.problem

    @property
    def trouble(self) -> Exception | None:
        """Why no connection can be made now."""
        return self._pool.trouble

    def _asked(self, _: "asyncio.Task[None]") -> None:
        self._asking = None

    async def beat(self) -> None:
        """Send one heartbeat."""
        try:
            await self._deadlines.within(self._limit, self._heard())
        except SchemaError as error:
            self._say(str(error), unusable=True)
        except AWAY as error:
            why = reason(
                self.trouble if isinstance(error, TimeoutError) and self.trouble else error
            )
            self._say(f"The database is not available: {why}", unusable=False)
        else:
            self._say(None, unusable=False)

    async def _heard(self) -> None:
        """A lost connection does not prove a lost database: try once more on another connection."""
        try:
            await self._speak()
        except LOST as error:
            if isinstance(error, PoolTimeout) or survived(error):
                raise
            self._pool.distrust()
            await self._speak()

    async def _speak(self) -> None:
        async with self._pool.connection() as connection, closed_when_unfit(connection):
            if not self._published:
                await check_pooler(connection, self._pool.pooled)
            await check_schema(connection)
            if not self._published:
                await publish(connection, self._declared)
                self._published = True
            await register(
                _on(connection), entry(self._name, "api", __version__, {}, self._declared)
            )
            await self._learn(connection)

    async def _learn(self, connection: AsyncConnection[Any]) -> None:
        # How many there are. And what other processes declare as admin's is admin's here too,
        # whether this one has the task or not.
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(load("list_admin_types"))
            self.admin_types = frozenset(name for (name,) in await cursor.fetchall())
            await cursor.execute(load("count_apis"))
            ((self.processes,),) = await cursor.fetchall()

    def _say(self, problem: str | None, *, unusable: bool) -> None:
        if problem != self.problem and problem is None:
            log.info("the database answers, and its schema fits", extra={"event": "api.ready"})
        elif problem != self.problem:
            log.warning("not ready: %s", problem, extra={"event": "api.unready"})
        self.problem, self.unusable = problem, unusable

    def republish(self) -> None:
        """Publish the job types again with the next heartbeat: the table job_types lacks one."""
        self._published = False
        self._asked_at = 0.0

    async def run(self) -> None:
        """Send heartbeats until cancelled; the next one comes soon after one that failed."""
        pace = RetryDelay()
        while True:
            if self.problem is None and self._published:
                pace.reset()
                await asyncio.sleep(BEAT)
            else:
                await asyncio.sleep(pace.next())
            await self.beat()

    async def leave(self) -> None:
        """Remove the process from the registry, if the database answers quickly."""
        with contextlib.suppress(*AWAY):
            await self._deadlines.within(1.0, self._retire())

    async def _retire(self) -> None:
        async with self._pool.connection() as connection:
            await retire(_on(connection), self._name)


def _on(connection: AsyncConnection[Any]) -> Run:
    async def run(statement: str, parameters: Parameters) -> None:
        await connection.execute(load(statement), parameters)

    return run
