"""Connections of the worker: opened again when they are lost, with a bound on everything that they
wait for."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

from pgqueue.database.adapters import Parameters, RawJson, TextId
from pgqueue.database.errors import LOST, REPEATABLE, STALE, survived
from pgqueue.database.loaders import AnyTime
from pgqueue.database.session import OURS, settle
from pgqueue.database.statements import load as load
from pgqueue.errors import SchemaError
from pgqueue.settings import Settings

log = logging.getLogger("pgqueue.database.worker_connection")


R = TypeVar("R")


T = TypeVar("T")


class BoundedConnection(AsyncConnection[R]):
    """Stops waiting for an answer after `deadlines`: a dead peer behind a live proxy never answers.
    Raises one of LOST then, and cannot be used again."""

    deadlines: float | None = None
    """Seconds."""

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109 - psycopg's
        return await super().wait(gen, interval, self.deadlines if timeout is None else timeout)


PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    # Rows are locked in the order in which they are given.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class WorkerConnection:
    """One connection of the engine, in autocommit, that comes back after any loss. Statements on it
    go one after the other.

    `epoch` counts the connections made so far: when it changes, the replies that were under way
    are lost.
    """

    def __init__(
        self, conninfo: str, settings: Settings, *, name: str, sorting: bool = True
    ) -> None:
        self.epoch = 0
        self.repeats = 0
        self.statements = 0
        self._conninfo = psycopg.conninfo.make_conninfo(
            conninfo, application_name=f"pgqueue {name}"[:63]
        )
        self._limit = settings.statement_timeout.total_seconds()
        self._pooled = settings.pgbouncer
        self._sorting = sorting
        self._connection: BoundedConnection[TupleRow] | None = None
        self._cursor: AsyncCursor[TupleRow] | None = None

    async def connect(self) -> AsyncConnection[TupleRow]:
        """The connection, made when there is none. Raises one of LOST."""
        if self._connection is None or self._connection.closed:
            async with asyncio.timeout(self._limit):
                connection: BoundedConnection[TupleRow] = await BoundedConnection.connect(
                    self._conninfo,
                    autocommit=True,
                    prepare_threshold=None if self._pooled else 0,
                    client_encoding="UTF8",
                )
                try:
                    await settle(connection, self._pooled, self._session())
                except SchemaError as error:
                    await connection.close()
                    raise psycopg.OperationalError(str(error)) from error
            connection.deadlines = self._limit + 1
            connection.adapters.register_loader("jsonb", RawJson)
            connection.adapters.register_loader("uuid", TextId)
            connection.adapters.register_loader("timestamptz", AnyTime)
            self._connection = connection
            self._cursor = None
            self.epoch += 1
        return self._connection

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def _ready(self) -> AsyncCursor[TupleRow]:
        connection = await self.connect()
        if self._cursor is None:
            self._cursor = connection.cursor(binary=True)
        return self._cursor

    def _session(self) -> dict[str, str]:
        """A limit on every statement, and the plans that the claim index was made for, made
        once."""
        limit = f"{int(self._limit * 1000)}ms"
        limits = dict.fromkeys(
            ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), limit
        )
        # Off for claims, whose rows come in the order of their index.
        return OURS | limits | PLANS | {"enable_sort": "on" if self._sorting else "off"}

    async def run(self, statement: str, parameters: Parameters) -> Sequence[TupleRow]:
        """The rows of sql/queries/<statement>.sql. Undone by a deadlock, it is sent again. Raises
        one of LOST, the connection then being gone, or what the statement raised."""
        cursor = await self._run(statement, parameters)
        return await cursor.fetchall() if cursor.description else []

    async def count(self, statement: str, parameters: Parameters) -> int:
        """The same for a statement without rows: how many it changed."""
        return (await self._run(statement, parameters)).rowcount

    async def _run(self, statement: str, parameters: Parameters) -> AsyncCursor[TupleRow]:
        prepared_anew = False
        try:
            for _ in range(20):
                cursor = await self._ready()
                self.statements += 1
                try:
                    return await cursor.execute(load(statement), parameters)
                except REPEATABLE as error:
                    self.repeats += 1
                    log.warning(
                        "%s was undone (%s) and is sent again", statement, type(error).__name__
                    )
                except STALE as error:
                    if prepared_anew:
                        raise
                    prepared_anew = True
                    log.warning(
                        "%s no longer fits (%s) and is prepared anew",
                        statement,
                        type(error).__name__,
                    )
                    await self.close()
            raise psycopg.OperationalError(f"{statement} was undone 20 times in a row")
        except LOST as error:
            if not survived(error):
                await self.close()
            raise
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            await connection.close()


class RetryDelay:
    """How long to wait before trying again what failed: 0.1 s, then double, up to 5 s, until it
    succeeds."""

    def __init__(self) -> None:
        self._next = 0.1

    def reset(self) -> None:
        self._next = 0.1

    def next(self) -> float:
        wait, self._next = self._next, min(self._next * 2, 5.0)
        return wait
