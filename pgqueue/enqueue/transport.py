"""How a client runs a statement: on its pool, again when a connection was lost, within its time; or
on a connection that a caller brings with its own transaction. The rules stand here, once; the
blocking and the awaiting transport add the I/O."""

import time
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncCursor, Cursor
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool import PoolClosed, PoolTimeout

from pgqueue.database.adapters import Parameters
from pgqueue.database.errors import LOST, REPEATABLE, STALE, survived
from pgqueue.database.loaders import reading
from pgqueue.database.session import SecondsDumper
from pgqueue.errors import InvalidJob

Row = dict[str, Any]
NOTHING: Parameters = {}
BUSY = (
    "the connection is in the middle of another command (COPY, or a stream of rows): end that first"
)
MAX_UNDONE = 20
"""Times that a statement may be undone by a deadlock before its caller gets the error."""

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.01, 0.25
"""Between two tries after lost connections; the first try follows at once."""


class Transport(ABC):
    """Runs the statements of sql/ for a client. No call waits longer than `timeout` (s).

    In the transport of a blocking client these coroutines block and never suspend
    (pgqueue/blocking.py).
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    async def repeat(
        self,
        statement: str,
        values: Parameters = NOTHING,
        folder: str = "queries",
        *,
        deadline: float | None = None,
    ) -> tuple[list[Row], bool]:
        """Run it in a transaction of its own; again after a lost connection, while there is time
        (until the deadline by the monotonic clock), and after a deadlock. The second value says
        that it may have been carried out twice; of what it raises, `sent_before` does."""
        deadline = time.monotonic() + self.timeout if deadline is None else deadline
        lost, undone, pause = False, 0, 0.0
        while True:
            try:
                async with self.connection(deadline) as connection:
                    return await self.execute(connection, statement, values, folder), lost
            except (*REPEATABLE, *STALE) as error:
                # STALE: each connection of the pool may have it; none comes back after this.
                undone += 1
                if undone == MAX_UNDONE:
                    _mark(error, lost)
                    raise
                await self.sleep(0)
            except LOST as error:
                if (
                    isinstance(error, PoolTimeout | PoolClosed)
                    or survived(error)
                    or time.monotonic() + pause >= deadline
                ):
                    _mark(error, lost)
                    raise
                lost = True
                await self.distrust()
                await self.sleep(pause)
                pause = min(pause * 2 or FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS)

    async def enqueue_alone(self, values: Parameters) -> tuple[list[Row], bool]:
        """Store one job in a commit of its own. Where the last ring woke a worker, the next one is
        likely to, and goes with the job's commit."""
        statement = "enqueue_and_ring" if self.last_ring_woke else "enqueue_job"
        return await self.repeat(statement, values)

    async def enqueue_joined(self, connection: Any, values: Parameters) -> Row:
        """Store one job in the caller's transaction."""
        return (await self.join(connection, "enqueue_job", values))[0]

    @abstractmethod
    async def enqueue(self, values: Parameters) -> tuple[Row, bool]:
        """Store one job on a connection of the pool; the row, and whether it may have been stored
        twice."""

    @abstractmethod
    async def join(self, connection: Any, statement: str, values: Parameters) -> list[Row]:
        """Run a statement in the caller's transaction."""

    @abstractmethod
    def connection(self, deadline: float) -> AbstractAsyncContextManager[Any]:
        """A connection of the pool, until the deadline (by the monotonic clock)."""

    @abstractmethod
    async def execute(
        self, connection: Any, statement: str, values: Parameters, folder: str = "queries"
    ) -> list[Row]:
        """The rows of sql/<folder>/<statement>.sql."""

    @abstractmethod
    async def distrust(self) -> None:
        """Have every connection of the pool checked before it is used again: where one was lost the
        others may be too."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait, or only let others run when that is 0."""

    @property
    @abstractmethod
    def last_ring_woke(self) -> bool:
        """Whether the last ring of the doorbell woke a worker."""

    @abstractmethod
    def ring(self, queue: str, jobs: int) -> None:
        """Wake sleeping workers of a queue, in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the calls under way and the last ring; then close the pool, if it is the
        client's own."""


def prepare_cursor(
    cursor: Cursor[Any] | AsyncCursor[Any], statement: str, values: Parameters
) -> None:
    """Have a cursor write and read values as pgqueue needs them, on a connection of any kind."""
    if any(isinstance(value, timedelta) for value in values.values()):
        cursor.adapters.register_dumper(timedelta, SecondsDumper)
    if not statement.startswith("enqueue"):
        reading(cursor)


def has_rows(cursor: Cursor[Any] | AsyncCursor[Any], pgconn: psycopg.pq.abc.PGconn) -> bool:
    """Whether there is a result to fetch. In a pipeline that is known only when it is fetched."""
    return cursor.description is not None or pgconn.pipeline_status != PipelineStatus.OFF


def check_usable(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise InvalidJob before anything is sent when a job cannot be enqueued on a connection."""
    if connection.closed:
        raise InvalidJob("the connection is closed: open another one")
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        raise InvalidJob("the transaction of this connection has failed: roll it back first")
    active = (
        status == TransactionStatus.ACTIVE
        and connection.pgconn.pipeline_status == PipelineStatus.OFF
    )
    if active and not connection.lock.locked():
        raise InvalidJob(BUSY)


def _mark(error: Exception, lost: bool) -> None:
    error.sent_before = lost  # type: ignore[attr-defined]  # for sent_before() alone
