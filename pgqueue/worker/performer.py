"""Performs one attempt: decodes, calls the handler within its time, and passes on how it ended. Knows no SQL."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pgqueue.errors import LeaseLost
from pgqueue.job import Job, Outcome
from pgqueue.policy import Released, TimedOut, Undecodable, verdict
from pgqueue.task import Task
from pgqueue.worker.hand import Held

log = logging.getLogger("pgqueue.worker")

Report = Callable[[Held, float, str | None], Awaitable[None]]


class Performer:
    """Starts attempts as asyncio tasks; synchronous handlers run in threads."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any]],
        resources: Mapping[str, Any],
        threads: int,
        finish: Callable[[Held, Outcome], None],
        shelve: Callable[[Held], None],
        forget: Callable[[Held], None],
        report: Report,
    ) -> None:
        self.tasks = tasks
        self.resources = resources
        self.finish = finish
        self.shelve = shelve
        self.forget = forget
        self.report = report
        self.running: set[Held] = set()
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="handler")

    def start(self, held: Held) -> None:
        claim = held.claim
        task = self.tasks.get(claim.job_type)
        if task is None:
            self.shelve(held)
            return
        if log.isEnabledFor(logging.INFO):
            log.info(
                "Processing job %s (Attempt %d/%d)",
                claim.job_id,
                claim.attempt,
                claim.max_attempts,
                extra={
                    "event": "job.processing",
                    "jobId": claim.job_id,
                    "jobType": claim.job_type,
                    "status": "processing",
                    "attemptCount": claim.attempt,
                },
            )
        held.started_at = time.monotonic()
        self.running.add(held)
        held.task = asyncio.create_task(self._perform(task, held))

    async def _perform(self, task: Task[Any], held: Held) -> None:
        error: BaseException | None = None
        try:
            job = self._job(task, held)
            await (self._call(task, job, held) if task.is_async else self._call_in_thread(task, job, held))
        except asyncio.CancelledError as cancelled:
            error = Released() if held.released else cancelled
        except Exception as caught:  # noqa: BLE001 - whatever a handler raises is a failed attempt
            error = caught
        held.finished_at = time.monotonic()
        self.running.discard(held)
        if held.lost is not None or isinstance(error, LeaseLost):
            log.warning(
                "Job %s: attempt %d was stopped, for its lease is gone: %s",
                held.claim.job_id,
                held.claim.attempt,
                held.lost or "a write of the handler met no row",
                extra={"event": "lease.lost", "jobId": held.claim.job_id, "attemptCount": held.claim.attempt},
            )
            self.forget(held)
            return
        self.finish(held, verdict(held.claim, error, task.backoff))

    def _job(self, task: Task[Any], held: Held) -> Job[Any]:
        claim = held.claim
        try:
            payload = task.decode(claim.payload)
        except (ValueError, RecursionError) as error:
            raise Undecodable(str(error)) from None
        return Job(
            payload,
            job_id=claim.job_id,
            job_type=claim.job_type,
            user_id=claim.user_id,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            created_at=claim.created_at,
            resources=self.resources.get(claim.job_type),
            reporter=_Reporter(self.report, held) if task.is_async else _no_progress,
        )

    async def _call(self, task: Task[Any], job: Job[Any], held: Held) -> None:
        seconds = task.timeout.total_seconds()
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                await task.handler(job)
        except TimeoutError:
            if clock.expired():
                raise TimedOut(f"timed out after {seconds:g} s") from None
            raise

    async def _call_in_thread(self, task: Task[Any], job: Job[Any], held: Held) -> None:
        """A thread cannot be interrupted: slot and lease are kept until it returns, whatever has happened meanwhile."""
        seconds = task.timeout.total_seconds()
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, task.handler, job)
        late = loop.time() + seconds
        while not call.done():
            try:
                await asyncio.wait({call})
            except asyncio.CancelledError:
                if held.released:
                    # The process is about to end, and the thread with it.
                    raise
        if loop.time() > late:
            call.exception()
            raise TimedOut(f"timed out after {seconds:g} s (a synchronous handler cannot be interrupted)")
        call.result()


class _Reporter:
    __slots__ = ("_held", "_report")

    def __init__(self, report: Report, held: Held) -> None:
        self._report = report
        self._held = held

    async def __call__(self, fraction: float, note: str | None) -> None:
        await self._report(self._held, fraction, note)


async def _no_progress(fraction: float, note: str | None) -> None:
    raise RuntimeError("a synchronous handler has no progress")
