"""A worker: builds its parts, starts them, and stops them in the right order."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from pgqueue.attempt import Outcome
from pgqueue.database.errors import AWAY
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import check_schema
from pgqueue.database.pooler import check_pooler
from pgqueue.database.processes import entry, process_name, register, retire
from pgqueue.database.session import connected
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.discovery import Lifespan, by_type
from pgqueue.error_text import headline
from pgqueue.job import Status
from pgqueue.policy import Released, verdict
from pgqueue.settings import Settings
from pgqueue.task import Task
from pgqueue.version import __version__
from pgqueue.worker.acker import Acker
from pgqueue.worker.attempt_writes import AttemptWrites
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claimer import Claimer
from pgqueue.worker.doorbell import Doorbell
from pgqueue.worker.handler_task import own_task
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.lanes import Lanes
from pgqueue.worker.leases import LeaseKeeper
from pgqueue.worker.log_lines import log_outcome, log_start
from pgqueue.worker.loops import RestartingLoop
from pgqueue.worker.performer import Performer
from pgqueue.worker.pruner import prune_regularly
from pgqueue.worker.sweeper import Sweeper
from pgqueue.worker.watchdog import Watchdog

log = logging.getLogger("pgqueue.worker")

LAST_WORDS = 5.0
"""Seconds that the release of unfinished jobs may take when the worker stops."""


class Worker:
    """Performs the jobs of its tasks, in the event loop of the program that awaits `run`.

        worker = Worker(settings, tasks=[resize])
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        ...
        worker.stop()
        await running

    settings: of the database, the queues and how many jobs of each at once (`queues`), timeouts; a
    URL stands for Settings with that database. tasks: what it performs; PGQUEUE_MODULES is not
    read. lifespan: an async context manager of the settings, open while the worker runs; what it
    yields is `job.resources`. Or a lifespan for each job type. Raises TaskError when two tasks have
    the same job type, SettingsError without a database.
    """

    def __init__(
        self,
        settings: Settings | str,
        tasks: Iterable[Task[Any]],
        *,
        lifespan: Lifespan | Mapping[str, Lifespan] | None = None,
    ) -> None:
        settings = Settings(database_url=settings) if isinstance(settings, str) else settings
        self.settings = settings
        self.tasks = by_type(tasks)
        self.lifespans = (
            dict.fromkeys(self.tasks, lifespan) if callable(lifespan) else dict(lifespan or {})
        )
        self.name = process_name()
        self.inflight = InFlight(dict(settings.queues), self.name)
        self.declared = declarations(self.tasks.values(), settings)
        self.stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self._links = {name: self._link(name) for name in ("claims", "acks", "sweeps", "writes")}
        self.writes = AttemptWrites(self._links["writes"], self.inflight, settings)
        self.watchdog = Watchdog()
        self._loops: list[asyncio.Task[Any]] = []

    def _link(self, name: str) -> WorkerConnection:
        return WorkerConnection(
            self.settings.conninfo, self.settings, name=name, sorting=name != "claims"
        )

    def stop(self) -> None:
        """Ask for an orderly end: no new claims; running jobs finish within
        PGQUEUE_SHUTDOWN_TIMEOUT or go back to their queues, without burning an attempt. Call it in
        the worker's event loop."""
        self.stopping.set()

    @property
    def healthy(self) -> bool:
        """Whether its loops turn, it has heard from the database lately, and it can claim and write
        outcomes."""
        turning = self.watchdog.still < self.settings.lease.total_seconds() and not any(
            loop.done() for loop in self._loops
        )
        heard = self.ready.is_set() and time.monotonic() - self.sweeper.last_beat < 15
        return turning and heard and self.acker.healthy and not self.claimer.trouble.lasting

    @property
    def statements(self) -> int:
        """How many statements its links have sent."""
        return sum(link.statements for link in self._links.values())

    async def run(self) -> None:
        """Work until `stop` is called and everything is handed back. Raises SchemaError, or
        psycopg's errors, OSError and TimeoutError, when it cannot start; and the error of a loop
        of the worker that failed again and again."""
        async with AsyncExitStack() as stack:
            if not await self._started(stack):
                return
            helpers = {
                "doorbell": self.doorbell.run,
                "pruning": lambda: prune_regularly(self.settings),
                "timeouts": self.performer.watch,
                "leases": self.leases.watch,
                "watchdog": self.watchdog.turn,
            }
            background = [
                own_task(RestartingLoop(name, run, self.stopping).run())
                for name, run in helpers.items()
            ]
            # The outcomes that the acker held when it failed are lost to it: it is not started
            # again.
            loops: list[asyncio.Task[Any]] = [own_task(self.acker.run())]
            loops += [
                own_task(RestartingLoop(one.__class__.__name__, one.run, self.stopping).run())
                for one in (self.claimer, self.sweeper)
            ]
            self._loops = [*background, *loops]
            self.watchdog.start()
            self.leases.start()
            self.ready.set()
            stopped = own_task(self.stopping.wait())
            try:
                await asyncio.wait([stopped, *self._loops], return_when=asyncio.FIRST_COMPLETED)
                failed = [loop for loop in self._loops if loop.done()]
                await self._stop(loops)
            finally:
                self.ready.clear()
                self.leases.stop()
                self.watchdog.stop()
                for task in (*background, *loops, stopped):
                    task.cancel()
                await asyncio.gather(*background, *loops, stopped, return_exceptions=True)
            for task in failed:
                if not task.cancelled() and (error := task.exception()):
                    raise error

    async def _started(self, stack: AsyncExitStack) -> bool:
        """Prepares, opens what the tasks need, and registers; False when it was told to stop
        meanwhile."""
        try:
            async with asyncio.timeout(None) as start:
                told = own_task(self._end_at_stop(start))
                stack.callback(told.cancel)
                await self._prepare()
                resources = await self._open_resources(stack)
                self._build(resources)
                await self._register(self._links["sweeps"])
        except TimeoutError:
            if not start.expired():
                raise
            log.info("stopped before it had started", extra={"event": "worker.stopped"})
            await self._leave()
            return False
        told.cancel()
        log_start(self.name, self.inflight.slots, self.tasks, resources.values())
        self._warn()
        return True

    async def _end_at_stop(self, start: asyncio.Timeout) -> None:
        await self.stopping.wait()
        start.reschedule(0)

    async def _prepare(self) -> None:
        async with await connected(self.settings.conninfo, self.settings.pgbouncer) as connection:
            await check_pooler(connection, self.settings.pgbouncer)
            await check_schema(connection)
            await publish(connection, self.declared)

    async def _open_resources(self, stack: AsyncExitStack) -> dict[str, Any]:
        """Job type -> what its lifespan yielded; each lifespan is opened once."""
        opened: dict[Lifespan, Any] = {}
        for lifespan in self.lifespans.values():
            if lifespan not in opened:
                opened[lifespan] = await stack.enter_async_context(lifespan(self.settings))
        return {job_type: opened[lifespan] for job_type, lifespan in self.lifespans.items()}

    def _build(self, resources: Mapping[str, Any]) -> None:
        settings, inflight = self.settings, self.inflight
        self.doorbell = Doorbell(settings, self.name)
        depends = {one.job_type: one.depends_on for one in self.declared if one.depends_on}
        breaker = Breaker(self._links["acks"], depends, self._resume, self.name)
        self.acker = Acker(self._links["acks"], inflight, breaker, self._settled, self._expect)
        self.performer = Performer(
            tasks=self.tasks,
            resources=resources,
            threads=sum(inflight.slots.values()),
            finish=self.acker.put,
            shelve=self.acker.shelve,
            forget=inflight.drop,
            writes=self.writes,
        )
        lanes = Lanes(inflight.slots)
        self.claimer = Claimer(
            connection=self._links["claims"],
            lanes=lanes,
            inflight=inflight,
            doorbell=self.doorbell,
            breaker=breaker,
            start=self._start,
            settings=settings,
            worker=self.name,
        )
        self.sweeper = Sweeper(
            connection=self._links["sweeps"],
            lanes=lanes,
            inflight=inflight,
            claimer=self.claimer,
            breaker=breaker,
            start=self._start,
            register=self._register,
            settings=settings,
            worker=self.name,
            types=list(self.tasks),
            detail=self._detail,
        )
        self.leases = LeaseKeeper(inflight, settings, self.name, self.watchdog)

    def _start(self, held: RunningAttempt) -> None:
        if self.stopping.is_set():
            # A claim that was under way when the worker was told to stop.
            self._finish(held, verdict(held.claim, Released()))
        else:
            self.performer.start(held)

    def _resume(self) -> None:
        """A breaker has closed: what it held back lies behind the cursors."""
        self.claimer.lanes.rewind()
        self.doorbell.wake()

    def _expect(self, delay: float) -> None:
        self.claimer.expect(delay)

    def _finish(self, held: RunningAttempt, outcome: Outcome) -> None:
        self.acker.put(held, outcome)

    def _warn(self) -> None:
        for task in self.tasks.values():
            if task.queue not in self.inflight.slots:
                log.warning(
                    "%s is for queue %s, which this worker does not serve: --queue %s:50",
                    task.job_type,
                    task.queue,
                    task.queue,
                    extra={"event": "queue.unserved", "jobType": task.job_type},
                )

    def _detail(self) -> dict[str, int]:
        """What this process has done, as `pgqueue workers` shows it."""
        repeated = sum(link.repeats for link in self._links.values())
        return asdict(self.inflight.counters) | {
            "repeated": repeated,
            "running": len(self.inflight.attempts),
        }

    async def _register(self, link: WorkerConnection) -> None:
        await register(
            link.run,
            entry(
                self.name,
                "worker",
                __version__,
                self.inflight.slots,
                self.declared,
                lease=self.settings.lease,
            ),
        )

    async def _stop(self, loops: list[asyncio.Task[Any]]) -> None:
        timeout = self.settings.shutdown_timeout.total_seconds()
        running = list(self.performer.running)
        log.info(
            "stopping: no new claims; running jobs (%d) have %g s",
            len(running),
            timeout,
            extra={"event": "worker.stopping"},
        )
        self.claimer.stop()
        tasks = [held.task for held in running if held.task]
        if tasks and not loops[0].done():
            await asyncio.wait(tasks, timeout=timeout)
        await self._give_back()
        if loops[0].done():
            loops[0] = own_task(self.acker.run())
        self.acker.stop()
        self.sweeper.stop()
        _, late = await asyncio.wait(loops, timeout=LAST_WORDS)
        for loop in loops:
            if loop.done() and not loop.cancelled() and (error := loop.exception()):
                log.error(
                    "a loop of the worker failed: %s",
                    headline(error),
                    extra={"event": "loop.failed"},
                )
        if late:
            log.error(
                "could not hand everything back in time; what is left runs again when its lease "
                "has run out"
            )
        self.leases.stop()
        await self._leave()
        log.info("stopped", extra={"event": "worker.stopped"})

    async def _leave(self) -> None:
        """Takes the process out of the registry, and closes its connections."""
        try:
            async with asyncio.timeout(LAST_WORDS / 5):
                await retire(self._links["acks"].run, self.name)
        except AWAY as error:
            log.warning(
                "the database is away (%s); leases run out by themselves", type(error).__name__
            )
        await self.writes.close()
        for link in self._links.values():
            await link.close()

    async def _give_back(self) -> None:
        """What still runs is cancelled and goes back to its place. A thread that does not end is
        left to the end of the process."""
        left = list(self.performer.running)
        for held in left:
            held.released = True
            if held.task:
                held.task.cancel()
        if tasks := [held.task for held in left if held.task]:
            await asyncio.wait(tasks, timeout=LAST_WORDS / 5)
        for held in list(self.performer.running):
            self.performer.running.discard(held)
            self._finish(held, verdict(held.claim, Released()))

    def _settled(self, held: RunningAttempt, outcome: Outcome) -> None:
        counters = self.inflight.counters
        match outcome.status:
            case Status.COMPLETED:
                counters.completed += 1
            case Status.FAILED:
                counters.failed += 1
            case Status.DLQ:
                counters.dead += 1
            case _:
                counters.released += 1
        level = {Status.FAILED: logging.WARNING, Status.DLQ: logging.ERROR}.get(
            outcome.status, logging.INFO
        )
        if log.isEnabledFor(level):
            log_outcome(held, outcome, level)
