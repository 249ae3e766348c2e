"""Performs one attempt: decodes, calls the handler within its time, and passes on how it ended.
Knows no SQL."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from pgqueue.attempt import BaseJob, Job, Outcome, ThreadJob, Writes
from pgqueue.error_text import name_of, text_of
from pgqueue.job import Status
from pgqueue.policy import Released, TimedOut, Undecodable, completed, verdict
from pgqueue.task import Task
from pgqueue.worker.handler_calls import awaited, begun, called, release_django_async
from pgqueue.worker.handler_task import ATTEMPT, OwnTask
from pgqueue.worker.inflight import RunningAttempt

log = logging.getLogger("pgqueue.worker")

STILL_RUNNING = timedelta(seconds=2)
"""How long a job waits whose earlier attempt cannot be stopped."""

TICK = 0.05
"""Seconds between two looks at who has run out of time."""

GRACE = 5.0
"""Seconds in which an attempt must end after it was cancelled. Then its job goes on without it."""


class Performer:
    """Starts attempts as asyncio tasks; synchronous handlers run in threads."""

    def __init__(
        self,
        *,
        tasks: Mapping[str, Task[Any]],
        resources: Mapping[str, Any],
        threads: int,
        finish: Callable[[RunningAttempt, Outcome], None],
        shelve: Callable[[RunningAttempt], None],
        forget: Callable[[RunningAttempt], None],
        writes: Writes,
    ) -> None:
        self.tasks = tasks
        self.resources = resources
        self.finish = finish
        self.shelve = shelve
        self.forget = forget
        self.writes = writes
        self.running: set[RunningAttempt] = set()
        self._unstoppable: set[str] = set()
        """Rows whose attempt runs in a thread or ignores that it was cancelled, still theirs or
        not."""
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="handler")

    def start(self, held: RunningAttempt) -> None:
        claim = held.claim
        task = self.tasks.get(claim.job_type)
        if task is None:
            self.shelve(held)
            return
        if claim.id in self._unstoppable:
            # Cancelled and replayed, for instance: an attempt before this one has lost its lease,
            # and has not stopped.
            where = (
                "goes on although it was cancelled" if task.is_async else "still runs in a thread"
            )
            self.finish(
                held,
                Outcome(Status.ENQUEUED, delay=STILL_RUNNING, error=f"an earlier attempt {where}"),
            )
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
        coroutine = self._perform(task, held)
        coroutine.send(None)  # as far as its `begun`
        held.task = one = OwnTask(coroutine)
        one.attempt = held

    async def watch(self) -> None:
        """Stops attempts whose time is over; until cancelled. One look at all of them is cheaper
        than a timer for each."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for held in [
                held for held in self.running if held.deadline <= now or held.lost is not None
            ]:
                self._press(held, now)

    def _press(self, held: RunningAttempt, now: float) -> None:
        is_async = self.tasks[held.claim.job_type].is_async
        if not held.overdue and held.deadline <= now:
            held.overdue = True
            if held.task is not None and is_async:
                held.task.cancel()
        if not held.stopped_at:
            held.stopped_at = now
        elif is_async and now - held.stopped_at > GRACE and not held.completing:
            self._abandon(held)

    def _abandon(self, held: RunningAttempt) -> None:
        """Stop waiting for a handler that goes on although it was cancelled. Its slot is free, and
        the fence refuses its writes."""
        held.abandoned = True
        self.running.discard(held)
        self._unstoppable.add(held.claim.id)
        if held.task is not None:
            held.task.add_done_callback(lambda _: self._unstoppable.discard(held.claim.id))
        log.error(
            "Job %s: its handler goes on although it was cancelled %g s ago",
            held.claim.job_id,
            GRACE,
            extra={
                "event": "job.unstoppable",
                "jobId": held.claim.job_id,
                "jobType": held.claim.job_type,
            },
        )
        task = self.tasks[held.claim.job_type]
        self._end(
            task, held, None, TimedOut(f"{_too_long(task)}, and goes on although it was cancelled")
        )

    async def _perform(self, task: Task[Any], held: RunningAttempt) -> None:
        error: BaseException | None = None
        job: BaseJob[Any] | None = None
        try:
            await begun()
            held.begun = True
            if held.lost is not None:
                raise asyncio.CancelledError
            ATTEMPT.set(held)
            payload, resources = self._payload(task, held), self.resources.get(held.claim.job_type)
            if task.is_async:
                job = waiting = Job(payload, held.claim, resources, self.writes)
                await release_django_async()
                await awaited(task.handler, waiting)
            else:
                job = ThreadJob(payload, held.claim, resources, self.writes.for_threads())
                await self._perform_in_thread(task, held, job)
            if held.overdue and not held.completed:
                error = TimedOut(_too_long(task))
        except asyncio.CancelledError as cancelled:
            error = self._why(task, held, cancelled)
        except BaseException as caught:  # noqa: BLE001 - everything a handler raises is a failed attempt, sys.exit() too
            error = caught
        if not held.abandoned:
            self._end(task, held, job, error)

    def _end(
        self,
        task: Task[Any],
        held: RunningAttempt,
        job: BaseJob[Any] | None,
        error: BaseException | None,
    ) -> None:
        held.finished_at = time.monotonic()
        self.running.discard(held)
        if held.completed:
            self._warn_of(error, held)
            self.finish(held, completed(job))
        elif held.lost is not None:
            self._forget(held)
        elif error is None:
            self.finish(held, completed(job))
        else:
            self.finish(held, verdict(held.claim, error, task.backoff, depends_on=task.depends_on))

    def _payload(self, task: Task[Any], held: RunningAttempt) -> Any:
        try:
            return task.decode(held.claim.payload)
        except BaseException as error:  # noqa: BLE001 - a payload's own checks may raise anything
            raise Undecodable(text_of(error)) from None

    def _why(
        self, task: Task[Any], held: RunningAttempt, cancelled: asyncio.CancelledError
    ) -> BaseException:
        if held.released:
            return Released()
        return TimedOut(_too_long(task)) if held.overdue else cancelled

    def _warn_of(self, error: BaseException | None, held: RunningAttempt) -> None:
        if error is not None:
            log.warning(
                "Job %s: its handler ended with %s after its transaction had completed the job",
                held.claim.job_id,
                name_of(error),
                extra={"event": "job.late_error", "jobId": held.claim.job_id},
            )

    def _forget(self, held: RunningAttempt) -> None:
        log.warning(
            "Job %s: attempt %d was stopped, for its lease is gone: %s",
            held.claim.job_id,
            held.claim.attempt,
            held.lost,
            extra={
                "event": "lease.lost",
                "jobId": held.claim.job_id,
                "attemptCount": held.claim.attempt,
            },
        )
        self.forget(held)

    async def _perform_in_thread(
        self, task: Task[Any], held: RunningAttempt, job: ThreadJob[Any]
    ) -> None:
        """A thread cannot be interrupted: slot and lease are kept until it returns. It runs in a
        copy of the attempt's context."""
        context = contextvars.copy_context()
        call = asyncio.get_running_loop().run_in_executor(
            self._threads, context.run, called, task.handler, job
        )
        self._unstoppable.add(held.claim.id)
        call.add_done_callback(lambda _: self._unstoppable.discard(held.claim.id))
        while not call.done():
            try:
                await asyncio.wait({call})
            except asyncio.CancelledError:
                job.stop()
                if held.released:
                    # The process is about to end, and the thread with it.
                    raise
        held.overdue = time.monotonic() > held.deadline
        if (error := call.result()) is not None and not held.overdue:
            raise error


def _too_long(task: Task[Any]) -> str:
    said = f"timed out after {task.timeout.total_seconds():g} s"
    return said if task.is_async else f"{said} (a synchronous handler cannot be interrupted)"
