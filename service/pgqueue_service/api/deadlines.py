"""The longest time that a request waits for the database, and that it keeps other requests
waiting."""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger("pgqueue_service.api.deadlines")

T = TypeVar("T")

SLICE = 0.002
"""Seconds that one request works before others get their turn."""


class Deadlines:
    """Runs work in tasks of its own, and abandons a task that takes too long."""

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises what it raises, or TimeoutError; then it may have been
        carried out or not.

        Not asyncio.timeout: that waits for the cancellation, which takes 10 s on a connection whose
        other end is dead.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not task.done():
            self._abandon(task)
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()

    def _abandon(self, task: "asyncio.Task[Any]") -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("after its time was over: %s", type(error).__name__)


class Turns:
    """For long work on the event loop: in slices, so that other requests stay quick."""

    def __init__(self, deadline: float = math.inf) -> None:
        """deadline: by the monotonic clock."""
        self._deadline = deadline
        self._until = time.monotonic() + SLICE

    async def pause(self) -> None:
        """Call this often: it lets other requests work when a slice is over. Raises TimeoutError
        after the deadline."""
        now = time.monotonic()
        if now < self._until:
            return
        if now > self._deadline:
            raise TimeoutError("the time was over before the work was done")
        await asyncio.sleep(0)
        self._until = time.monotonic() + SLICE
