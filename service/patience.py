"""How long a request waits for the database, whatever the database does."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger("service.patience")

T = TypeVar("T")


class Patience:
    """Runs work in tasks of its own, and leaves behind what takes too long."""

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises what it raises, or TimeoutError; then it may have been carried out or not.

        Not asyncio.timeout: that waits for the cancellation, which takes 10 s on a connection whose other end is dead.
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
