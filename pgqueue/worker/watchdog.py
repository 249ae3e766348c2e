"""Watches the event loop from a thread, and logs the line of code that blocks it."""

import asyncio
import logging
import sys
import threading
import time
from types import FrameType

from pgqueue.error_text import line_of
from pgqueue.worker import handler_calls as calls
from pgqueue.worker.handler_task import OwnTask
from pgqueue.worker.inflight import RunningAttempt

log = logging.getLogger("pgqueue.worker")

BEAT_SECONDS = 0.1
"""Time between two heartbeats of the event loop."""

BLOCKED_AFTER_SECONDS = 1.0
"""An event loop that is blocked for longer is logged."""


class Watchdog:
    """`turn` runs in the loop, everything else in a thread."""

    def __init__(self) -> None:
        self._turned_at = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._stop = threading.Event()

    def start(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._turned_at = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    @property
    def still(self) -> float:
        """For how many seconds the event loop has been blocked."""
        return time.monotonic() - self._turned_at

    async def turn(self) -> None:
        """Write heartbeats until cancelled."""
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    def _watch(self) -> None:
        reported_at = 0.0
        while not self._stop.wait(BLOCKED_AFTER_SECONDS / 4):
            if self.still > BLOCKED_AFTER_SECONDS + BEAT_SECONDS and reported_at != self._turned_at:
                reported_at = self._turned_at
                self._report()

    def _report(self) -> None:
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return
        held, where = self._attempt(), _place(frame)
        extra = {"event": "loop.blocked", "where": where}
        if held is not None:
            extra |= {"jobId": held.claim.job_id, "jobType": held.claim.job_type}
        log.warning(
            (
                "%s has blocked the event loop for %.1f s at %s; nothing else runs meanwhile: "
                "await, or use a plain `def` handler"
            ),
            "something" if held is None else f"Job {held.claim.job_id}",
            self.still,
            where,
            extra=extra,
        )

    def _attempt(self) -> RunningAttempt | None:
        task = asyncio.current_task(self._loop)
        attempt = task.attempt if isinstance(task, OwnTask) else None
        return attempt if isinstance(attempt, RunningAttempt) else None


def _place(innermost: FrameType) -> str:
    """The line of the handler, and the innermost line where that is in another file."""
    frame: FrameType | None = innermost
    handler = innermost
    while frame is not None and frame.f_code.co_filename != calls.__file__:
        handler, frame = frame, frame.f_back
    if frame is None:
        handler = innermost
    line = line_of(handler.f_code.co_filename, handler.f_lineno)
    if handler is innermost:
        return line
    return f"{line} (in {line_of(innermost.f_code.co_filename, innermost.f_lineno)})"
