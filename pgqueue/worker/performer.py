"""Performs one attempt: decodes, calls the handler within its time, and passes on how it ended. Knows no SQL."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from pgqueue.errors import LeaseLost
from pgqueue.job import Job, Outcome, Status, ThreadJob, Writes
from pgqueue.policy import Released, TimedOut, Undecodable, completed, spoken, verdict
from pgqueue.task import Task
from pgqueue.worker.hand import Held

log = logging.getLogger("pgqueue.worker")

STILL_RUNNING = timedelta(seconds=2)
"""How long a job waits whose earlier attempt cannot be stopped."""

TICK = 0.05
"""Seconds between two looks at who has run out of time."""


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
        writes: Writes,
    ) -> None:
        self.tasks = tasks
        self.resources = resources
        self.finish = finish
        self.shelve = shelve
        self.forget = forget
        self.writes = writes
        self.running: set[Held] = set()
        self._in_threads: set[str] = set()
        """Rows whose attempt runs in a thread, still theirs or not."""
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="handler")

    def start(self, held: Held) -> None:
        claim = held.claim
        task = self.tasks.get(claim.job_type)
        if task is None:
            self.shelve(held)
            return
        if claim.id in self._in_threads:
            # Cancelled and replayed, for instance: an attempt before this one has lost its lease, and goes on all the same.
            self.finish(held, Outcome(Status.ENQUEUED, delay=STILL_RUNNING, error="an earlier attempt still runs in a thread"))
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
        held.deadline = held.started_at + task.seconds
        self.running.add(held)
        held.task = asyncio.Task(self._perform(task, held))

    async def watch(self) -> None:
        """Stops attempts whose time is over; until cancelled. One look at all of them is cheaper than a timer for each."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for held in [held for held in self.running if held.deadline <= now and not held.overdue]:
                held.overdue = True
                if held.task is not None and self.tasks[held.claim.job_type].is_async:
                    held.task.cancel()

    async def _perform(self, task: Task[Any], held: Held) -> None:
        error: BaseException | None = None
        job: Job[Any] | None = None
        try:
            payload, resources = self._payload(task, held), self.resources.get(held.claim.job_type)
            if task.is_async:
                job = Job(payload, held.claim, resources, self.writes)
                await task.handler(job)
            else:
                job = ThreadJob(payload, held.claim, resources)
                await self._perform_in_thread(task, held, job)
            if held.overdue and not held.completed:
                error = TimedOut(_too_long(task))
        except asyncio.CancelledError as cancelled:
            error = self._why(task, held, cancelled)
        except BaseException as caught:  # noqa: BLE001 - whatever a handler raises is a failed attempt, sys.exit() too
            error = caught
        held.finished_at = time.monotonic()
        self.running.discard(held)
        if held.completed:
            self._warn_of(error, held)
            self.finish(held, completed(job))
        elif held.lost is not None or isinstance(error, LeaseLost):
            self._forget(held)
        elif error is None:
            self.finish(held, completed(job))
        else:
            self.finish(held, verdict(held.claim, error, task.backoff, depends_on=task.depends_on))

    def _payload(self, task: Task[Any], held: Held) -> Any:
        try:
            return task.decode(held.claim.payload)
        except Exception as error:  # noqa: BLE001 - a payload's own checks may raise anything
            raise Undecodable(spoken(error)) from None

    def _why(self, task: Task[Any], held: Held, cancelled: asyncio.CancelledError) -> BaseException:
        if held.released:
            return Released()
        return TimedOut(_too_long(task)) if held.overdue else cancelled

    def _warn_of(self, error: BaseException | None, held: Held) -> None:
        if error is not None:
            log.warning(
                "Job %s: its handler ended with %s after its transaction had completed the job",
                held.claim.job_id,
                type(error).__name__,
                extra={"event": "job.late_error", "jobId": held.claim.job_id},
            )

    def _forget(self, held: Held) -> None:
        log.warning(
            "Job %s: attempt %d was stopped, for its lease is gone: %s",
            held.claim.job_id,
            held.claim.attempt,
            held.lost or "a write of the handler met no row",
            extra={"event": "lease.lost", "jobId": held.claim.job_id, "attemptCount": held.claim.attempt},
        )
        self.forget(held)

    async def _perform_in_thread(self, task: Task[Any], held: Held, job: Job[Any]) -> None:
        """A thread cannot be interrupted: slot and lease are kept until it returns, whatever has happened meanwhile."""
        call = asyncio.get_running_loop().run_in_executor(self._threads, _call, task.handler, job)
        self._in_threads.add(held.claim.id)
        call.add_done_callback(lambda _: self._in_threads.discard(held.claim.id))
        while not call.done():
            try:
                await asyncio.wait({call})
            except asyncio.CancelledError:
                if held.released:
                    # The process is about to end, and the thread with it.
                    raise
        held.overdue = time.monotonic() > held.deadline
        if (error := call.result()) is not None and not held.overdue:
            raise error


def _call(handler: Callable[[Job[Any]], Any], job: Job[Any]) -> BaseException | None:
    """What it raises, as a value: a future does not take everything that can be raised."""
    try:
        handler(job)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a thread is a failed attempt too
        return error
    return None


def _too_long(task: Task[Any]) -> str:
    said = f"timed out after {task.timeout.total_seconds():g} s"
    return said if task.is_async else f"{said} (a synchronous handler cannot be interrupted)"
