"""Several processes on one port: a parent that watches, and children that serve."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, Process

from pgqueue.database.worker_connection import RetryDelay

log = logging.getLogger("pgqueue.api")

SETTLED = 10.0
"""Seconds after which a child counts as well started: its end is then no reason to wait with the
next one."""

LAST_WORDS = 20.0
"""Seconds that the children have, beyond the drain, before they are killed."""


class Prefork:
    """Keeps `count` processes running `command`, and replaces those that die, ever slower when they
    die at once."""

    def __init__(
        self, command: list[str], count: int, listener: socket.socket, drain: float
    ) -> None:
        self._command = command
        self._count = count
        self._listener = listener
        self._drain = drain
        self._children: set[Process] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Returns the exit code when all are gone: after SIGTERM or SIGINT, which are passed on; a
        second one kills."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        await self._stopping.wait()
        # Else connections would pile up on a socket that is no longer accepted from.
        self._listener.close()
        _, late = await asyncio.wait(keepers, timeout=self._drain + LAST_WORDS)
        if late:
            log.error(
                "%d processes did not end and are killed", len(late), extra={"event": "api.killed"}
            )
            self._signal(signal.SIGKILL)
            await asyncio.wait(keepers)
        log.info("stopped", extra={"event": "api.stopped"})
        # A child that had not come to installing its handlers yet ends by the signal itself.
        return 0 if all(keeper.result() in (0, -signal.SIGTERM) for keeper in keepers) else 1

    def _stop(self) -> None:
        self._signal(signal.SIGKILL if self._stopping.is_set() else signal.SIGTERM)
        self._stopping.set()

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    async def _keep(self, number: int) -> int:
        """Keep one child running; return the exit code of the last one."""
        pace = RetryDelay()
        while True:
            started = time.monotonic()
            code = await self._live()
            if self._stopping.is_set():
                return code
            if time.monotonic() - started > SETTLED:
                pace.reset()
            wait = pace.next()
            log.error(
                "process %d of %d ended with code %d; the next one starts in %.1f s",
                number,
                self._count,
                code,
                wait,
                extra={"event": "api.died"},
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
                return 0

    async def _live(self) -> int:
        # A session of its own: Ctrl-C on a terminal reaches only the parent, and the child hears of
        # it once.
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=DEVNULL,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )
        self._children.add(child)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        try:
            return await child.wait()
        finally:
            self._children.discard(child)
