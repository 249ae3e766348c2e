"""What a client can do, written once: one coroutine for each verb, over a Transport. AsyncClient is
these verbs; Client runs each of them to its end on a transport that blocks. Reading them is reading
the contents of sql/queries/."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

import msgspec
import psycopg

from pgqueue.database.adapters import Parameters
from pgqueue.durations import Duration
from pgqueue.enqueue.encoding import (
    bulk_parameters,
    filter_parameters,
    json_text,
    parameters,
    queue_of,
    with_id,
)
from pgqueue.enqueue.results import bulk_rows, in_our_words, ticket_from, view_from
from pgqueue.enqueue.transport import NOTHING, Transport
from pgqueue.errors import InvalidJob, JobNotFound, WrongState
from pgqueue.job import AnyJob, DeadFilter, JobView, NewJob, Replayed, Ticket
from pgqueue.stats import Stats
from pgqueue.task import Task

P = TypeVar("P")
C = TypeVar("C")
"""What `connection=` takes."""

MOST_AT_ONCE = 10_000
"""Jobs in one enqueue_many or replay_many."""

YOUNGER_BY_SECONDS = 0.25
"""What a statement may take on its way: added to the age of a job that counts as the call's own."""

EVERYTHING = DeadFilter()


class Options(TypedDict, Generic[C], total=False):
    """The keyword arguments of `enqueue`, for type checkers; their meaning is said there."""

    job_id: str | None
    user_id: str | None
    queue: str | None
    priority: int | None
    run_after: datetime | None
    delay: Duration | None
    max_attempts: int | None
    filled: dict[str, Any] | None
    connection: C | None


class Verbs(Generic[C]):
    """The verbs of both clients. Every verb raises Unavailable when the database does not answer
    in time, and SchemaError on a database without the schema of pgqueue."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # For producers

    @overload
    async def enqueue(self, task: Task[P], payload: P, **options: Unpack[Options[C]]) -> Ticket: ...

    @overload
    async def enqueue(self, task: str, payload: Any, **options: Unpack[Options[C]]) -> Ticket: ...

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
        connection: C | None = None,
    ) -> Ticket:
        """Store one job; it is durable when this returns.

        task: a Task, or the name of a job type. job_id: any text of 1 to 255 characters; None makes
        one up. priority: 0 (first) to 9; None is 5. run_after: an aware datetime; or delay: counted
        from the database's now. max_attempts: 1 to 1000; None takes the type's. filled: members
        that are added to the payload, and are ignored when payloads are compared.

        connection: joins the transaction of that connection. The job is stored when the caller
        commits, and not at all after a rollback. Call `notify` after the commit to have the job
        started at once.

        Raises RateLimited and DuplicatePayload, which leave the caller's transaction usable, and
        UnknownType, NotAllowed, InvalidJob.
        """
        job = NewJob(
            task, payload, job_id, user_id, queue, priority, run_after, delay, max_attempts, filled
        )
        ticket = await self.try_enqueue(job, connection=connection)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    async def try_enqueue(self, job: AnyJob, *, connection: C | None = None) -> Ticket:
        """Store one job, as by `enqueue`. A refusal (RateLimited, DuplicatePayload) is the ticket's
        `error` instead of an exception."""
        values = parameters(job)
        fresh = with_id(values) or job.fresh_id
        began = time.monotonic()
        with in_our_words():
            if connection is None:
                row, repeated = await self._transport.enqueue(values)
            else:
                row, repeated = await self._transport.enqueue_joined(connection, values), False
        ticket = ticket_from(row, values["job_type"])
        if repeated and not ticket.created and ticket.status is not None:
            mine = fresh or await self._younger_than_call([ticket.job_id], began)
            ticket = msgspec.structs.replace(ticket, created=bool(mine))
        if ticket.created and connection is None and not row.get("rung"):
            self._ring(row["queue"] or queue_of(job), 1)
        return ticket

    async def enqueue_many(
        self, jobs: Sequence[AnyJob], *, connection: C | None = None
    ) -> list[Ticket]:
        """Store up to 10,000 jobs in one commit. A ticket for each job, in order; a refused one
        carries its `error`. Raises UnknownType or InvalidJob for the whole, and then nothing is
        stored."""
        if len(jobs) > MOST_AT_ONCE:
            raise InvalidJob(f"at most {MOST_AT_ONCE} jobs at once, not {len(jobs)}")
        if not jobs:
            return []
        given, values = await bulk_parameters(jobs, self._transport.sleep)
        began = time.monotonic()
        with in_our_words():
            if connection is None:
                rows, repeated = await self._transport.repeat("enqueue_jobs", values)
            else:
                rows = await self._transport.join(connection, "enqueue_jobs", values)
                repeated = False
        answers = bulk_rows(rows, given)
        if repeated:
            mine = await self._younger_than_call(
                [one["job_id"] for one, row in zip(given, answers, strict=True) if row["status"]],
                began,
            )
            for job, one, row in zip(jobs, given, answers, strict=True):
                fresh = job.job_id is None or job.fresh_id
                if row["status"] is not None and (fresh or one["job_id"] in mine):
                    row |= {"created": True, "queue": row["queue"] or queue_of(job)}
        if connection is None:
            for queue, count in Counter(row["queue"] for row in answers if row["created"]).items():
                self._ring(queue, count)
        return [ticket_from(row, one["job_type"]) for row, one in zip(answers, given, strict=True)]

    async def _younger_than_call(self, job_ids: list[str], began: float) -> set[str]:
        """After a lost reply: the jobs that were created since the call began (monotonic, s). Roles
        that may only enqueue cannot ask; for them it is as if another caller had created them."""
        age = time.monotonic() - began + YOUNGER_BY_SECONDS
        values = {"job_ids": job_ids, "age": timedelta(seconds=age)}
        try:
            rows, _ = await self._transport.repeat(
                "find_created", values, deadline=began + self._transport.timeout
            )
        except (psycopg.Error, OSError):
            return set()
        return {row["job_id"] for row in rows}

    def notify(self, queue: str = "default", jobs: int = 1) -> None:
        """Wake sleeping workers of a queue: call it after the commit of a transaction that enqueued
        jobs with `connection=`. Returns at once."""
        self._ring(queue, jobs)

    def _ring(self, queue: str | None, jobs: int) -> None:
        if queue is not None:
            self._transport.ring(queue, jobs)

    # For producers and operators

    async def get(self, job_id: str) -> JobView:
        """Return the state of a job. Raises JobNotFound."""
        rows = await self._run_readable("get_job", {"job_id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return view_from(rows[0])

    async def cancel(self, job_id: str) -> None:
        """Cancel a job: a waiting one ends at once, a running one loses its lease. Raises
        JobNotFound, and WrongState when it has ended."""
        await self._change("cancel_job", {"job_id": job_id})

    # For operators

    async def replay(self, job_id: str, payload: Any = None) -> None:
        """Send a dead or cancelled job back to its queue, with attempts from 0. A payload given
        here replaces the old one, which stays in the history. Raises JobNotFound, WrongState."""
        text = None if payload is None else json_text(payload)
        row = await self._change("replay_job", {"job_id": job_id, "payload": text})
        if row["queue"]:
            self._ring(row["queue"], 1)

    async def replay_many(
        self,
        filters: DeadFilter,
        *,
        rate: float = 50.0,
        limit: int = MOST_AT_ONCE,
        dry_run: bool = False,
    ) -> Replayed:
        """Send dead jobs back, the longest dead first. rate: jobs a second. limit: at most 10,000 a
        call."""
        if not rate > 0:
            raise InvalidJob("the rate must be above 0 jobs a second")
        matched = await self.count_dead(filters)
        most = min(limit, MOST_AT_ONCE)
        if dry_run:
            return Replayed(0, matched, matched, True)
        spacing = timedelta(seconds=1 / rate)
        rows = await self.run(
            "replay_jobs", filter_parameters(filters) | {"limit": most, "spacing": spacing}
        )
        retried = int(rows[0]["replay_jobs"])
        return Replayed(retried, max(matched, retried), max(matched - retried, 0), False)

    async def dead_letters(
        self,
        filters: DeadFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: tuple[datetime, UUID] | None = None,
    ) -> list[JobView]:
        """Return a page of the dead-letter queue, newest first. cursor: (dead_at, id) of the last
        job of the page before."""
        dead_at, last = cursor or (None, None)
        rows = await self._run_readable(
            "list_dead_jobs",
            filter_parameters(filters)
            | {"limit": limit, "cursor_dead_at": dead_at, "cursor_id": last},
        )
        return [view_from(row) for row in rows]

    async def count_dead(self, filters: DeadFilter = EVERYTHING) -> int:
        """Count the dead jobs that pass the filters; counting stops at 100,000."""
        rows = await self.run("count_dead_jobs", filter_parameters(filters))
        return int(rows[0]["count"])

    async def delete_dead(self, job_id: str) -> None:
        """Take a job out of the dead-letter queue: it becomes cancelled. Raises JobNotFound,
        WrongState."""
        await self._change("delete_dead_job", {"job_id": job_id})

    async def pause(self, queue: str) -> None:
        """Stop claims from a queue, at once and for all workers. Running jobs go on."""
        await self.run("pause_queue", {"queue": queue, "paused": True})

    async def resume(self, queue: str) -> None:
        """End a pause."""
        await self.run("pause_queue", {"queue": queue, "paused": False})
        self._ring(queue, MOST_AT_ONCE)

    async def stats(self) -> Stats:
        """Return the number of jobs in each state, and how the last 15 minutes went."""
        return Stats(**(await self.report("job_stats"))[0])

    async def report(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of sql/monitoring/<name>.sql, as dicts."""
        with in_our_words():
            rows, _ = await self._transport.repeat(name, NOTHING, "monitoring")
        return rows

    # Statements

    async def run(
        self, statement: str, values: Parameters = NOTHING, *, connection: C | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of sql/queries/<statement>.sql, as dicts."""
        with in_our_words():
            if connection is not None:
                return await self._transport.join(connection, statement, values)
            rows, _ = await self._transport.repeat(statement, values)
        return rows

    async def _run_readable(self, statement: str, values: Parameters) -> list[dict[str, Any]]:
        """The same; where a row is damaged, once more and as far as each can be read."""
        try:
            return await self.run(statement, {**values, "damaged": False})
        except psycopg.InternalError:
            return await self.run(statement, {**values, "damaged": True})

    async def _change(self, statement: str, values: Parameters) -> dict[str, Any]:
        row = (await self.run(statement, values))[0]
        if row["changed"]:
            return row
        if row["status"] is None:
            raise JobNotFound(row["job_id"])
        raise WrongState(row["job_id"], row["status"], row["message"])
