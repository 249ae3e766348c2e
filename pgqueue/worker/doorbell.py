"""The worker's end of the doorbell: a connection that listens. It only shortens waits; jobs are
claimed without it."""

import asyncio
import logging

import psycopg
from psycopg import AsyncConnection, sql

from pgqueue.database.errors import AWAY
from pgqueue.database.session import connected
from pgqueue.database.worker_connection import RetryDelay
from pgqueue.settings import Settings

log = logging.getLogger("pgqueue.worker")

PROOF_SECONDS = 3.0
"""A test ring must arrive within this time, or the doorbell counts as not working."""


class Doorbell:
    """Waits that end early on `wake`, and on a ring from the database while `working`."""

    def __init__(self, settings: Settings, worker: str) -> None:
        self.working = False
        self._settings = settings
        self._channel = f"pgqueue_{worker}"
        self._rung = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, or for `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()

    def wake(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        self._rung.clear()

    async def run(self) -> None:
        """Listen until cancelled, and reconnect after a lost connection. Returns at once when the
        settings allow no doorbell."""
        if not self._settings.doorbell:
            return
        if self._settings.direct_is_pooled:
            log.info(
                "no doorbell: PGQUEUE_PGBOUNCER is on and there is no PGQUEUE_DIRECT_URL",
                extra={"event": "doorbell.off"},
            )
            return
        delay = RetryDelay()
        while True:
            try:
                async with await connected(
                    self._settings.direct_conninfo,
                    self._settings.direct_is_pooled,
                    application_name="pgqueue doorbell",
                ) as connection:
                    await connection.execute(
                        sql.SQL("LISTEN {}").format(sql.Identifier(self._channel))
                    )
                    if await self._proven(connection):
                        delay.reset()
                        await self._listen(connection)
            except AWAY as error:
                log.debug("the doorbell lost its connection: %s", type(error).__name__)
            finally:
                self.working = False
                self.wake()
            await asyncio.sleep(delay.next())

    async def _proven(self, connection: AsyncConnection[tuple[object, ...]]) -> bool:
        """Whether a test ring arrives. A pooler accepts LISTEN without an error and delivers
        nothing."""
        async with await connected(self._settings.conninfo, self._settings.pgbouncer) as doorbell:
            await doorbell.execute("SELECT pg_notify(%s, 'proof')", [self._channel])
        async for _ in connection.notifies(timeout=PROOF_SECONDS, stop_after=1):
            return True
        log.warning(
            (
                "no doorbell: a ring did not arrive; polling instead. With a pooler, set "
                "PGQUEUE_DIRECT_URL"
            ),
            extra={"event": "doorbell.off"},
        )
        return False

    async def _listen(self, connection: AsyncConnection[tuple[object, ...]]) -> None:
        self.working = True
        self.wake()
        async for _ in connection.notifies():
            self.wake()
        raise psycopg.OperationalError("the connection was closed")
