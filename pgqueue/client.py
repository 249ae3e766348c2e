"""The client: one method per verb, for producers and for operators. Reading it is reading the
contents of sql/queries/."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

import msgspec
from psycopg_pool import AsyncConnectionPool

from pgqueue.database.adapters import Parameters
from pgqueue.database.pool import open_pool
from pgqueue.durations import Duration, duration
from pgqueue.enqueue.caller import NOTHING, Caller, Connection
from pgqueue.enqueue.doorbell import Doorbell
from pgqueue.enqueue.encoding import (
    bulk_parameters,
    filter_parameters,
    json_text,
    parameters,
    queue_of,
    with_id,
)
from pgqueue.enqueue.group_commit import GroupCommit
from pgqueue.enqueue.results import bulk_rows, in_our_words, ticket_from, view_from
from pgqueue.errors import InvalidJob, JobNotFound, WrongState
from pgqueue.job import AnyJob, DeadFilter, JobView, NewJob, Replayed, Ticket
from pgqueue.settings import Settings
from pgqueue.task import Task

P = TypeVar("P")

MOST_AT_ONCE = 10_000
"""Jobs in one enqueue_many or replay_many."""


EVERYTHING = DeadFilter()


class Options(TypedDict, total=False):
    """What else `AsyncClient.enqueue` takes; here for type checkers, there with what it means."""

    job_id: str | None
    user_id: str | None
    queue: str | None
    priority: int | None
    run_after: datetime | None
    delay: Duration | None
    max_attempts: int | None
    filled: dict[str, Any] | None
    connection: Connection | None


class AsyncClient(Caller):
    """Enqueues jobs and looks after them. Build it with `AsyncClient.open`, or from an open pool in
    autocommit. Never migrates: on a database without our schema every verb raises SchemaError. No
    verb waits longer than `timeout` (5 s): then it raises Unavailable, which says why."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], *, doorbell: bool = True, timeout: Duration = 5.0
    ) -> None:
        super().__init__(pool, duration(timeout).total_seconds())
        self._doorbell = Doorbell(pool) if doorbell else None
        self._shared = GroupCommit(
            self._enqueue, lambda values: self._repeat("enqueue_group", values)
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, database: "str | Settings | AsyncConnectionPool[Any]", **options: Any
    ) -> AsyncIterator["AsyncClient"]:
        """A client for a database URL, for Settings, or for a pool that is open already (which
        stays open). Options: `timeout` (PGQUEUE_ENQUEUE_TIMEOUT), and `doorbell`
        (PGQUEUE_DOORBELL)."""
        if isinstance(database, AsyncConnectionPool):
            client = cls(database, **options)
            try:
                yield client
            finally:
                await client.close()
            return
        settings = Settings(database_url=database) if isinstance(database, str) else database
        timeout = duration(options.pop("timeout", settings.enqueue_timeout))
        async with open_pool(settings, timeout=timeout.total_seconds()) as pool:
            client = cls(
                pool,
                doorbell=options.pop("doorbell", settings.doorbell),
                timeout=timeout,
                **options,
            )
            try:
                yield client
            finally:
                await client.close()

    async def close(self) -> None:
        """Lets arrive what is under way, and stops ringing. The pool is its owner's."""
        await self._shared.close()
        if self._doorbell is not None:
            await self._doorbell.close()

    # Producers

    @overload
    async def enqueue(self, task: Task[P], payload: P, **options: Unpack[Options]) -> Ticket: ...

    @overload
    async def enqueue(self, task: str, payload: Any, **options: Unpack[Options]) -> Ticket: ...

    async def enqueue(
        self,
        task: Any,
        payload: Any,
        *,
        job_id: str | None = None,
        user_id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        run_after: datetime | None = None,
        delay: Duration | None = None,
        max_attempts: int | None = None,
        filled: dict[str, Any] | None = None,
        connection: Connection | None = None,
    ) -> Ticket:
        """Stores one job; when this returns, it is durable. With `connection` it joins that
        transaction, and is stored when the caller commits (call `ring` afterwards to have it
        started at once).

        task: a Task, or the name of a job type. priority: 0 (first) to 9; None is 5. run_after: an
        aware datetime; or delay: from the database's now. Raises RateLimited, DuplicatePayload
        (both leave the caller's transaction usable), UnknownType, InvalidJob.
        """
        job = NewJob(
            task, payload, job_id, user_id, queue, priority, run_after, delay, max_attempts, filled
        )
        ticket = await self.offer(job, connection=connection)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    async def offer(self, job: AnyJob, *, connection: Connection | None = None) -> Ticket:
        """The same, but a refusal is a ticket with an error."""
        values = parameters(job)
        mine = with_id(values) or job.fresh_id
        with in_our_words():
            if connection is None:
                row, repeated = await self._shared.offer(values)
            else:
                row, repeated = (await self._join(connection, "enqueue_job", values))[0], False
        ticket = ticket_from(row, values["job_type"])
        if mine and repeated and ticket.status is not None:
            ticket = msgspec.structs.replace(ticket, created=True)
        if ticket.created and connection is None and not row.get("rung"):
            self._ring(row["queue"] or queue_of(job), 1)
        return ticket

    async def _enqueue(self, values: Parameters) -> tuple[list[dict[str, Any]], bool]:
        asleep = self._doorbell is not None and self._doorbell.woke_somebody
        return await self._repeat("enqueue_and_ring" if asleep else "enqueue_job", values)

    async def enqueue_many(
        self, jobs: Sequence[AnyJob], *, connection: Connection | None = None
    ) -> list[Ticket]:
        """Stores up to 10,000 jobs in one commit. A ticket per job, in order; a refused one carries
        its `error`. Raises UnknownType or InvalidJob for the whole, and then nothing is stored."""
        if len(jobs) > MOST_AT_ONCE:
            raise InvalidJob(f"at most {MOST_AT_ONCE} jobs at once, not {len(jobs)}")
        if not jobs:
            return []
        given, values = await bulk_parameters(jobs)
        with in_our_words():
            if connection is None:
                rows, repeated = await self._repeat("enqueue_jobs", values)
            else:
                rows, repeated = await self._join(connection, "enqueue_jobs", values), False
        answers = bulk_rows(rows, given)
        if repeated:
            for job, row in zip(jobs, answers, strict=True):
                if (job.job_id is None or job.fresh_id) and row["status"] is not None:
                    row |= {"created": True, "queue": row["queue"] or queue_of(job)}
        if connection is None:
            for queue, count in Counter(row["queue"] for row in answers if row["created"]).items():
                self._ring(queue, count)
        return [ticket_from(row, one["job_type"]) for row, one in zip(answers, given, strict=True)]

    def ring(self, queue: str = "default", jobs: int = 1) -> None:
        """Wakes sleeping workers, for callers that committed jobs in a transaction of their own.
        Returns at once."""
        self._ring(queue, jobs)

    def _ring(self, queue: str | None, jobs: int) -> None:
        if self._doorbell is not None and queue is not None:
            self._doorbell.ring(queue, jobs)

    # Everybody

    async def get(self, job_id: str) -> JobView:
        """The job as it stands. Raises JobNotFound."""
        rows = await self._run_readable("get_job", {"job_id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return view_from(rows[0])

    async def cancel(self, job_id: str) -> None:
        """Ends a job that waits at once, and the lease of one that runs. Raises JobNotFound,
        WrongState when it has ended."""
        await self._change("cancel_job", {"job_id": job_id})

    # Operators

    async def replay(self, job_id: str, payload: Any = None) -> None:
        """Sends a dead or cancelled job back to its queue with attempts from 0. A payload given
        here replaces the old one, which stays in the history. Raises JobNotFound, WrongState."""
        text = None if payload is None else json_text(payload)
        row = await self._change("replay_job", {"job_id": job_id, "payload": text})
        if row["queue"]:
            self._ring(row["queue"], 1)

    async def replay_many(
        self,
        which: DeadFilter,
        *,
        rate: float = 50.0,
        limit: int = MOST_AT_ONCE,
        dry_run: bool = False,
    ) -> Replayed:
        """Sends dead jobs back, the longest dead first, `rate` of them a second, at most `limit`
        (10,000) a call."""
        if not rate > 0:
            raise InvalidJob("the rate must be above 0 jobs a second")
        matched = await self.count_dead(which)
        most = min(limit, MOST_AT_ONCE)
        if dry_run:
            return Replayed(0, matched, matched, True)
        spacing = timedelta(seconds=1 / rate)
        rows = await self.run(
            "replay_jobs", filter_parameters(which) | {"limit": most, "spacing": spacing}
        )
        retried = int(rows[0]["replay_jobs"])
        return Replayed(retried, max(matched, retried), max(matched - retried, 0), False)

    async def dead_letters(
        self,
        which: DeadFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: tuple[datetime, UUID] | None = None,
    ) -> list[JobView]:
        """A page of the dead-letter queue, newest first. `cursor` is (dead_at, id) of the last job
        of the page before."""
        dead_at, last = cursor or (None, None)
        rows = await self._run_readable(
            "list_dead_jobs",
            filter_parameters(which)
            | {"limit": limit, "cursor_dead_at": dead_at, "cursor_id": last},
        )
        return [view_from(row) for row in rows]

    async def count_dead(self, which: DeadFilter = EVERYTHING) -> int:
        """How many dead jobs pass the filter; counting stops at 100,000."""
        rows = await self.run("count_dead_jobs", filter_parameters(which))
        return int(rows[0]["count"])

    async def delete_dead(self, job_id: str) -> None:
        """Takes a job out of the dead-letter queue: it becomes cancelled. Raises JobNotFound,
        WrongState."""
        await self._change("delete_dead_job", {"job_id": job_id})

    async def pause(self, queue: str) -> None:
        """Stops claims from a queue, at once and for all workers; what runs goes on."""
        await self.run("pause_queue", {"queue": queue, "paused": True})

    async def resume(self, queue: str) -> None:
        """Ends a pause."""
        await self.run("pause_queue", {"queue": queue, "paused": False})
        self._ring(queue, MOST_AT_ONCE)

    async def stats(self) -> dict[str, Any]:
        """How many jobs are in each state, and how the last quarter of an hour went. See
        sql/monitoring/job_stats.sql."""
        return (await self.report("job_stats"))[0]

    async def report(self, name: str) -> list[dict[str, Any]]:
        """The rows of sql/monitoring/<name>.sql, as dicts."""
        with in_our_words():
            rows, _ = await self._repeat(name, NOTHING, "monitoring")
        return rows

    async def _change(self, statement: str, values: Parameters) -> dict[str, Any]:
        row = (await self.run(statement, values))[0]
        if row["changed"]:
            return row
        if row["status"] is None:
            raise JobNotFound(row["job_id"])
        raise WrongState(row["job_id"], row["status"], row["message"])
