"""Where the machine plays: one database, emptied for each run of it; workers whose loops stand still; and a look at everything."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgqueue.client import Client
from pgqueue.database import HexId, Link, load, open_pool
from pgqueue.job import Outcome
from pgqueue.registry import declarations, publish
from pgqueue.settings import Settings
from pgqueue.task import Task
from pgqueue.worker.hand import Held
from pgqueue.worker.lanes import START, Lane
from pgqueue.worker.worker import Worker

T = TypeVar("T")

LEASE = timedelta(minutes=2)
"""Longer than a run of the machine: leases run out when the machine moves time, and not by themselves."""

LINKS = ("claims", "acks", "sweeps", "progress")

QUEUES = {"default": 4, "other": 2}

TIMES = ("created_at", "run_after", "started_at", "lease_until", "processed_at", "dead_at")

MOVED = f"""
UPDATE job_logs SET {", ".join(f"{name} = {name} - %(by)s" for name in TIMES)},
       history = (SELECT jsonb_agg(h.e || jsonb_build_object('at', job_time((h.e ->> 'at')::timestamptz - %(by)s)) ORDER BY h.n)
                    FROM jsonb_array_elements(history) WITH ORDINALITY AS h(e, n))"""
"""Time goes on by so much: everything that has happened, and all that is to come, is earlier by that."""

EMPTY = "DELETE FROM job_logs; DELETE FROM job_tombstones; DELETE FROM job_queues; DELETE FROM job_workers"


class Look(NamedTuple):
    """Everything that there is, at one moment."""

    now: datetime
    rows: dict[str, dict[str, Any]]
    graves: dict[bytes, dict[str, Any]]
    paused: set[str]


class Hands:
    """A worker without its loops: each part of it takes one turn when it is told to."""

    def __init__(self, stage: "Stage", slot: int, name: str, tasks: Sequence[Task[Any]]) -> None:
        self.name = name
        self.types = {task.job_type for task in tasks}
        self.started: list[Held] = []
        """What it was given by the last statement."""
        self.attempts: list[Held] = []
        """What it believes to be running."""
        self.lost: list[Held] = []
        """What it was told to have lost."""
        self.slot = slot
        self.worker = Worker(stage.settings, {task.job_type: task for task in tasks}, {})
        self.worker.name = name
        self.worker._links = stage.links[slot]
        self.worker._build({})
        self.worker.claimer.start = self.worker.sweeper.start = self._start
        self.worker.leases._connection = stage.keepers[slot]
        self.worker.leases._lose = lambda held, why: self.lost.append(held)

    def _start(self, held: Held) -> None:
        held.started_at = time.monotonic()
        self.started.append(held)
        self.attempts.append(held)

    @property
    def lanes(self) -> list[Lane]:
        return self.worker.claimer.lanes.all

    def free(self, queue: str) -> int:
        return self.worker.hand.free(queue)

    async def claim(self) -> tuple[bool, float | None]:
        """Whether there may be more at once, and in how many seconds something comes due."""
        self.started = []
        return await self.worker.claimer._claim()

    async def sweep(self, *, resting: bool) -> None:
        self.started = []
        self.worker.claimer.resting = resting
        assert await self.worker.sweeper._turn()

    async def forget_replies(self) -> None:
        """What a worker does after a reconnect."""
        self.worker.claimer._epoch = self.worker.claimer.link.epoch
        self.worker.claimer.suspect()
        await self.worker.claimer._greet()

    async def write(self, outcomes: Sequence[tuple[Held, Outcome | None]]) -> int:
        """The outcomes of these attempts, None for one without a handler. Returns how many met no row."""
        acker, counters = self.worker.acker, self.worker.hand.counters
        before = counters.stale_writes
        for held, outcome in outcomes:
            self.attempts.remove(held)
            if outcome is None:
                acker.shelve(held)
            else:
                acker.put(held, outcome)
        acker.stop()
        await acker.run()
        acker._stopping = False
        return counters.stale_writes - before

    async def progress(self, held: Held, fraction: float, note: str) -> None:
        await self.worker._save_progress(held.claim, fraction, note)

    def extend(self, some: Sequence[Held]) -> None:
        self.lost = []
        self.worker.leases._extend(list(some))


class Stage:
    """The connections of one test. `play` runs a coroutine; between two calls nothing moves."""

    def __init__(self, settings: Settings, tasks: Sequence[Task[Any]], slots: int) -> None:
        self.settings = settings.with_(
            lease=LEASE,
            doorbell=False,
            queues=QUEUES,
            pool_size=2,
            keep_completed=timedelta(minutes=20),
            keep_dlq=timedelta(hours=2),
            keep_ids=timedelta(days=3),
        )
        self.tasks = tasks
        self.loop = asyncio.new_event_loop()
        self.heard: list[tuple[str, Sequence[Any]]] = []
        """Statements of workers since the last look, and what they answered."""
        self.lose_reply_of: str | None = None
        self.links = [
            {
                name: self._recorded(Link(settings.conninfo, self.settings, name=name, sorting=name != "claims"))
                for name in LINKS
            }
            for _ in range(slots)
        ]
        self.eye = psycopg.connect(settings.conninfo, autocommit=True, row_factory=dict_row)
        self.keepers = [self._keeper() for _ in range(slots)]
        self.play(self._open())

    def play(self, what: Awaitable[T]) -> T:
        return self.loop.run_until_complete(what)

    async def _open(self) -> None:
        logging.getLogger("pgqueue").setLevel(logging.CRITICAL)
        self.pool = open_pool(self.settings)
        await self.pool.open()
        self.client = Client(self.pool, doorbell=False)
        self.house = await AsyncConnection.connect(self.settings.conninfo, autocommit=True)
        self.slow = await AsyncConnection.connect(self.settings.conninfo)
        await publish(self.house, declarations(self.tasks, self.settings))

    def _keeper(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.settings.conninfo, autocommit=True, prepare_threshold=0)
        connection.adapters.register_loader("uuid", HexId)
        return connection

    def _recorded(self, one: Link) -> Link:
        run: Callable[..., Awaitable[Sequence[Any]]] = one.run

        async def recorded(statement: str, parameters: Any) -> Sequence[Any]:
            rows = await run(statement, parameters)
            self.heard.append((statement, rows))
            if self.lose_reply_of == statement:
                self.lose_reply_of = None
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return rows

        one.run = recorded
        return one

    def statement(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of the engine's statements, run by hand."""
        cursor = self.eye.execute(load(name), parameters)
        return cursor.fetchall() if cursor.description else []

    def look(self) -> Look:
        rows = {row["job_id"]: row for row in self.eye.execute("SELECT * FROM job_logs").fetchall()}
        graves = {row["id_hash"]: row for row in self.eye.execute("SELECT * FROM job_tombstones").fetchall()}
        last = self.eye.execute("SELECT clock_timestamp() AS now, ARRAY(SELECT queue FROM job_queues WHERE paused) AS paused")
        now, paused = last.fetchall()[0].values()
        self.heard.clear()
        return Look(now, rows, graves, set(paused))

    def empty(self) -> None:
        self.play(self.slow.rollback())
        self.eye.execute(EMPTY)

    def advance(self, by: timedelta, crew: Sequence[Hands]) -> None:
        """Moves time for the database and for whatever workers remember of it."""
        self.eye.execute(MOVED, {"by": by})
        self.eye.execute("UPDATE job_tombstones SET ended_at = ended_at - %s", [by])
        for lane in (lane for hands in crew for lane in hands.lanes if lane.cursor != START):
            lane.cursor = (lane.cursor[0] - by, lane.cursor[1])
        for held in (held for hands in crew for held in hands.attempts):
            held.started_at -= by.total_seconds()

    def expire(self, job_id: str) -> None:
        self.eye.execute("UPDATE job_logs SET lease_until = clock_timestamp() - interval '1 s' WHERE job_id = %s", [job_id])

    def close(self) -> None:
        async def close() -> None:
            for link in (link for links in self.links for link in links.values()):
                await link.close()
            await self.client.close()
            await self.pool.close()
            await self.house.close()
            await self.slow.close()

        self.play(close())
        self.eye.close()
        for keeper in self.keepers:
            keeper.close()
        self.loop.close()
        logging.getLogger("pgqueue").setLevel(logging.NOTSET)
