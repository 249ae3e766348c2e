"""Where the machine plays: one database, emptied for each run of it; workers whose loops stand
still; and a look at everything."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row, tuple_row

from pgqueue.attempt import Outcome
from pgqueue.client import AsyncClient
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.pool import open_pool
from pgqueue.database.worker_connection import WorkerConnection, load
from pgqueue.settings import Settings
from pgqueue.task import Task
from pgqueue.worker.inflight import RunningAttempt
from pgqueue.worker.lanes import START, Lane
from pgqueue.worker.worker import Worker
from tests.support.scene import for_worker

T = TypeVar("T")

LEASE = timedelta(minutes=2)
"""Longer than a run of the machine: leases run out when the machine moves time, and not by
themselves."""

QUEUES = {"default": 4, "other": 2}

TIMES = (
    "created_at",
    "run_after",
    "started_at",
    "lease_until",
    "processed_at",
    "dead_at",
    "intent_at",
)

MOVED = f"""
UPDATE job_logs SET {", ".join(f"{name} = {name} - %(by)s" for name in TIMES)},
       history = (SELECT jsonb_agg(h.e || jsonb_build_object(
         'at', pgqueue_time((h.e ->> 'at')::timestamptz - %(by)s)) ORDER BY h.n)
                    FROM jsonb_array_elements(history) WITH ORDINALITY AS h(e, n))"""
"""Time goes on by so much: everything that has happened, and all that is to come, is earlier by
that."""

MOVED_BESIDE = """
WITH graves AS (UPDATE job_tombstones SET ended_at = ended_at - %(by)s),
     beats AS (UPDATE job_workers SET seen_at = seen_at - %(by)s)
UPDATE job_dependencies SET opened_at = opened_at - %(by)s, closed_at = closed_at - %(by)s,
  probe_at = probe_at - %(by)s,
                            changed_at = changed_at - %(by)s"""

EMPTY = "; ".join(
    f"DELETE FROM job_{table}"
    for table in ("logs", "tombstones", "queues", "workers", "dependencies")
)


LOOK = """
SELECT * FROM job_logs;
SELECT * FROM job_tombstones;
SELECT clock_timestamp() AS now, ARRAY(SELECT queue FROM job_queues WHERE paused) AS paused;
SELECT * FROM job_dependencies WHERE state <> 'closed'"""


class Look(NamedTuple):
    """Everything that there is, at one moment."""

    now: datetime
    rows: dict[str, dict[str, Any]]
    graves: dict[bytes, dict[str, Any]]
    paused: set[str]
    broken: dict[str, dict[str, Any]]


class Hands:
    """A worker without its loops: each part of it takes one turn when it is told to."""

    def __init__(self, stage: "Stage", slot: int, name: str, tasks: Sequence[Task[Any]]) -> None:
        self.name = name
        self.types = {task.job_type for task in tasks}
        self.started: list[RunningAttempt] = []
        """What it was given by the last statement."""
        self.attempts: list[RunningAttempt] = []
        """What it believes to be running."""
        self.lost: list[RunningAttempt] = []
        """What it was told to have lost."""
        self.slot = slot
        self.worker = Worker(stage.for_worker, tasks)
        self.worker.name = self.worker.inflight.worker = name
        stage.lend(self.worker, slot)
        self.worker._build({})
        self.worker.claimer.start = self.worker.sweeper.start = self._start
        self.worker.leases._connection = stage.keepers.get(slot)
        self.worker.leases._lose = lambda held, why: self.lost.append(held)
        self.stage = stage

    def _start(self, held: RunningAttempt) -> None:
        held.started_at = time.monotonic()
        self.started.append(held)
        self.attempts.append(held)

    @property
    def lanes(self) -> list[Lane]:
        return self.worker.claimer.lanes.all

    def free(self, queue: str) -> int:
        """Slots for claims; a sweep may have kept some of them for the next one."""
        return self.worker.inflight.free(queue)

    def empty(self, queue: str) -> int:
        """Slots for sweeps."""
        return QUEUES[queue] - sum(held.claim.queue == queue for held in self.attempts)

    async def claim(self) -> tuple[bool, float | None]:
        """Whether there may be more at once, and in how many seconds something comes due."""
        self.started = []
        return await self.worker.claimer._claim_on()

    async def sweep(self, *, resting: bool) -> None:
        self.started = []
        self.worker.claimer.resting = resting
        # Now and then a sweep looks at whole lanes, and past now; the oracle is told of resting
        # ones alone.
        self.worker.sweeper._looks_ahead = False
        assert await self.worker.sweeper._turn()

    async def forget_replies(self) -> None:
        """What a worker does after a reconnect."""
        self.worker.claimer._epoch = self.worker.claimer.connection.epoch
        self.worker.claimer.reply_lost()
        await self.worker.claimer._recover_lost_replies()

    async def write(self, outcomes: Sequence[tuple[RunningAttempt, Outcome | None]]) -> int:
        """The outcomes of these attempts, None for one without a handler. Returns how many met no
        row."""
        acker, counters = self.worker.acker, self.worker.inflight.counters
        before = counters.stale_writes
        for held, outcome in outcomes:
            held.finished_at = time.monotonic()
            self.attempts.remove(held)
            if outcome is None:
                acker.shelve(held)
            else:
                acker.put(held, outcome)
        acker.stop()
        await acker.run()
        acker._stopping = False
        return counters.stale_writes - before

    async def progress(self, held: RunningAttempt, fraction: float, note: str) -> None:
        await self.worker.writes.progress(held.claim, fraction, note)

    async def intend(self, held: RunningAttempt) -> None:
        await self.worker.writes.intend(held.claim)

    def extend(self, some: Sequence[RunningAttempt]) -> None:
        self.lost = []
        self.worker.leases._extend(list(some))
        self.stage.keepers[self.slot] = self.worker.leases._connection


class Stage:
    """The connections of one test. `play` runs a coroutine; between two calls nothing moves."""

    def __init__(self, database_url: str, settings: Settings, tasks: Sequence[Task[Any]]) -> None:
        self.settings = settings.with_(
            lease=LEASE,
            doorbell=False,
            queues=QUEUES,
            pool_size=2,
            keep_completed=timedelta(minutes=20),
            keep_dlq=timedelta(hours=2),
            keep_ids=timedelta(days=3),
        )
        self.for_worker = for_worker(self.settings)
        self.tasks = tasks
        self.loop = asyncio.new_event_loop()
        self.heard: list[tuple[str, Sequence[Any]]] = []
        """Statements of workers since the last look, and what they answered."""
        self.lose_reply_of: str | None = None
        self.links: dict[int, dict[str, WorkerConnection]] = {}
        self.keepers: dict[int, Any] = {}
        """Connections of workers, by their slot: a new worker in it takes over what the one before
        had."""
        self.eye = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)
        self.play(self._open())

    def play(self, what: Awaitable[T]) -> T:
        return self.loop.run_until_complete(what)

    async def _open(self) -> None:
        logging.getLogger("pgqueue").setLevel(logging.CRITICAL)
        self.pool = open_pool(self.settings)
        await self.pool.open()
        self.client = AsyncClient(self.pool, doorbell=False)
        self.house = await AsyncConnection.connect(self.settings.conninfo, autocommit=True)
        self.slow = await AsyncConnection.connect(self.settings.conninfo)
        await publish(self.house, declarations(self.tasks, self.settings))

    def lend(self, worker: Worker, slot: int) -> None:
        if slot not in self.links:
            self.links[slot] = {name: self._recorded(link) for name, link in worker._links.items()}
        worker._links = self.links[slot]
        worker.writes._link = worker._links["writes"]

    def _recorded(self, one: WorkerConnection) -> WorkerConnection:
        run, run_statement = one.run, one._run

        async def recorded(statement: str, parameters: Any) -> Sequence[Any]:
            rows = await run(statement, parameters)
            self.heard.append((statement, rows))
            return rows

        async def lossy(statement: str, parameters: Any) -> Any:
            cursor = await run_statement(statement, parameters)
            if self.lose_reply_of == statement:
                self.lose_reply_of = None
                self.heard.append(
                    (statement, await cursor.fetchall() if cursor.description else [])
                )
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return cursor

        one.run, one._run = recorded, lossy
        return one

    def statement(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of the engine's statements, run by hand."""
        cursor = self.eye.execute(load(name), parameters)
        return cursor.fetchall() if cursor.description else []

    def look(self) -> Look:
        cursor = self.eye.execute(LOOK, prepare=False)  # four statements, and one round trip
        rows = {row["job_id"]: row for row in cursor.fetchall()}
        cursor.nextset()
        graves = {row["id_hash"]: row for row in cursor.fetchall()}
        cursor.nextset()
        ((now, paused),) = (row.values() for row in cursor.fetchall())
        cursor.nextset()
        broken = {row["dependency"]: row for row in cursor.fetchall()}
        self.heard.clear()
        return Look(now, rows, graves, set(paused), broken)

    def empty(self) -> None:
        self.play(self.slow.rollback())
        self.eye.execute(EMPTY)

    def advance(self, by: timedelta, crew: Sequence[Hands]) -> None:
        """Moves time for the database and for whatever workers remember of it."""
        self.eye.execute(MOVED, {"by": by})
        self.eye.execute(MOVED_BESIDE, {"by": by})
        for lane in (lane for hands in crew for lane in hands.lanes if lane.cursor != START):
            lane.cursor = (lane.cursor[0] - by, lane.cursor[1])
        for held in (held for hands in crew for held in hands.attempts):
            held.started_at -= by.total_seconds()
            held.claimed_at -= by.total_seconds()

    def living(self) -> Sequence[Any]:
        """Workers that were seen within a minute: their sweeps see to what they left."""
        with self.eye.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(
                "SELECT id FROM job_workers WHERE seen_at > now() - interval '1 min'"
            ).fetchall()

    def expire(self, job_id: str) -> None:
        self.eye.execute(
            (
                "UPDATE job_logs SET lease_until = clock_timestamp() - interval '1 s' "
                "WHERE job_id = %s"
            ),
            [job_id],
        )

    def close(self) -> None:
        async def close() -> None:
            for link in (link for links in self.links.values() for link in links.values()):
                await link.close()
            await self.client.close()
            await self.pool.close()
            await self.house.close()
            await self.slow.close()

        self.play(close())
        self.eye.close()
        for keeper in self.keepers.values():
            keeper.close()
        self.loop.close()
        logging.getLogger("pgqueue").setLevel(logging.NOTSET)
