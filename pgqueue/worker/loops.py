"""Restarts a loop of the worker after an unexpected error."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pgqueue.database.worker_connection import RetryDelay

log = logging.getLogger("pgqueue.worker")

MAX_FAILURES_IN_A_ROW = 3
"""After this many failures in a row a loop is not restarted: the worker returns its jobs and
ends."""

STEADY_AFTER_SECONDS = 60.0
"""A loop that ran this long before it failed starts a new row of failures."""


class RestartingLoop:
    """Runs `run` until the worker stops, or is cancelled. Raises the last of MOST failures in a
    row."""

    def __init__(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], stopping: asyncio.Event
    ) -> None:
        self._name = name
        self._run = run
        self._stopping = stopping

    async def run(self) -> None:
        failures, delay = 0, RetryDelay()
        while True:
            began = time.monotonic()
            try:
                await self._run()
                # One that the settings leave nothing to do, such as a doorbell that is off, returns
                # at once.
                await self._stopping.wait()
                return
            except asyncio.CancelledError:
                if (mine := asyncio.current_task()) is None or mine.cancelling():
                    raise
                error: BaseException = RuntimeError("it was cancelled from within")
            except Exception as caught:  # noqa: BLE001 - every error is logged and counted
                error = caught
            if time.monotonic() - began > STEADY_AFTER_SECONDS:
                failures, delay = 0, RetryDelay()
            failures += 1
            if failures >= MAX_FAILURES_IN_A_ROW or self._stopping.is_set():
                raise error
            log.error(
                "the loop %s failed and is started again",
                self._name,
                exc_info=error,
                extra={"event": "loop.failed"},
            )
            await asyncio.sleep(delay.next())
