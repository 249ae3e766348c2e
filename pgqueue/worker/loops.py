"""Keeps a loop of the worker going when something ends it that it did not expect."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pgqueue.database.worker_connection import Pace

log = logging.getLogger("pgqueue.worker")

MOST = 3
"""Failures in a row after which a loop is not started again: the worker gives back what it has, and
ends."""

SETTLED = 60.0
"""Seconds after which a failure is the first of a new row."""


class Loop:
    """Runs `run` until the worker stops, or is cancelled. Raises the last of MOST failures in a
    row."""

    def __init__(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], stopping: asyncio.Event
    ) -> None:
        self._name = name
        self._run = run
        self._stopping = stopping

    async def run(self) -> None:
        failures, pace = 0, Pace()
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
            if time.monotonic() - began > SETTLED:
                failures, pace = 0, Pace()
            failures += 1
            if failures >= MOST or self._stopping.is_set():
                raise error
            log.error(
                "the loop %s failed and is started again",
                self._name,
                exc_info=error,
                extra={"event": "loop.failed"},
            )
            await asyncio.sleep(pace.grow())
