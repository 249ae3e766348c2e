"""The doorbell: a producer rings after its commit, coalesced, or with it; only a worker that sleeps
costs a NOTIFY."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from pgqueue.blocking import finished
from pgqueue.database.adapters import Parameters

log = logging.getLogger("pgqueue.enqueue.doorbell")

REST_SECONDS = 0.02
"""Between two rings when the last one woke no worker."""

Repeat = Callable[[str, Parameters], Awaitable[tuple[list[dict[str, Any]], bool]]]
Sleep = Callable[[float], Awaitable[None]]


class Rings:
    """Rings in the background. While one ring is under way the next ones gather; a lost ring costs
    a worker's idle interval. In the doorbell of a blocking client `_ring_all` never suspends
    (pgqueue/blocking.py).

    repeat, sleep: those of a Transport."""

    def __init__(self, repeat: Repeat, sleep: Sleep) -> None:
        self.woke_a_worker = False
        """Whether the last ring did: then the next one is likely to, and may go with its job's
        commit."""
        self._repeat = repeat
        self._sleep = sleep
        self._waiting: dict[str, int] = {}

    def _add(self, queue: str, jobs: int) -> None:
        self._waiting[queue] = self._waiting.get(queue, 0) + jobs

    def _take(self) -> dict[str, int]:
        waiting, self._waiting = self._waiting, {}
        return waiting

    async def _ring_all(self) -> None:
        while waiting := self._take():
            woken = 0
            try:
                for queue, jobs in waiting.items():
                    values = {"queues": [queue], "jobs": jobs}
                    ((row,), _) = await self._repeat("ring_doorbell", values)
                    woken += row["ring_doorbell"]
            except Exception as error:  # noqa: BLE001 - the job is stored, and a lost ring costs little
                log.debug("the doorbell was not rung: %s", type(error).__name__)
                woken = 0
            self.woke_a_worker = woken > 0
            if not woken:
                # No worker slept: under load the next look can wait a little, and serves all that
                # is enqueued until then.
                await self._sleep(REST_SECONDS)


class Doorbell(Rings):
    """Rings by a task of the event loop."""

    def __init__(self, repeat: Repeat, sleep: Sleep) -> None:
        super().__init__(repeat, sleep)
        self._ringing: asyncio.Task[None] | None = None

    def ring(self, queue: str, jobs: int) -> None:
        self._add(queue, jobs)
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring_all(), name="ring the doorbell")

    async def close(self) -> None:
        """Wait for the last ring."""
        if self._ringing is not None:
            try:
                await asyncio.wait([self._ringing])
            finally:
                self._ringing.cancel()


class BlockingDoorbell(Rings):
    """Rings by a thread, which lives as long as there is something to ring for. A program that ends
    waits for it."""

    def __init__(self, repeat: Repeat, sleep: Sleep) -> None:
        super().__init__(repeat, sleep)
        self._lock = threading.Lock()
        self._ringing: threading.Thread | None = None

    def ring(self, queue: str, jobs: int) -> None:
        with self._lock:
            self._add(queue, jobs)
            if self._ringing is not None:
                return
            thread = self._ringing = threading.Thread(
                target=lambda: finished(self._ring_all()), name="pgqueue doorbell"
            )
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter ends, or has no room for a thread
            log.debug("the doorbell was not rung: %s", error)
            with self._lock:
                self._ringing = None

    def _take(self) -> dict[str, int]:
        with self._lock:
            waiting = super()._take()
            if not waiting:
                self._ringing = None
            return waiting

    def close(self) -> None:
        """Wait for the last ring."""
        if (thread := self._ringing) is not None:
            thread.join()
