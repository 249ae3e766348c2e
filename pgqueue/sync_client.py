"""The client of programs that block: Flask, Django, scripts. The same verbs as AsyncClient, from
pgqueue/verbs.py, each run to its end in the calling thread; there is no event loop behind it."""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload
from uuid import UUID

from psycopg_pool import ConnectionPool

from pgqueue.blocking import finished
from pgqueue.database.adapters import Parameters
from pgqueue.database.blocking_pool import open_blocking_pool
from pgqueue.durations import Duration, duration
from pgqueue.enqueue.blocking_transport import BlockingTransport
from pgqueue.enqueue.joining import Joinable
from pgqueue.enqueue.transport import NOTHING
from pgqueue.job import AnyJob, DeadFilter, JobView, Replayed, Ticket
from pgqueue.settings import Settings, settings_from
from pgqueue.stats import Stats
from pgqueue.task import Task
from pgqueue.verbs import EVERYTHING, MOST_AT_ONCE, Options, Verbs

P = TypeVar("P")


class Client:
    """Enqueues jobs and operates the queue. One client serves all threads of a process.

    Make it with `open` or `from_env`, and use it as a context manager; a web application may keep
    it for its lifetime and call `close` at the end. A client made before a fork (gunicorn's
    preload) works in each child: it connects at its first call there. A client on a pool of the
    application's own does not, and raises Unavailable in a child. Never migrates.

    `connection=` takes a psycopg.Connection, or Django's or SQLAlchemy's connection. Options and
    errors are those of AsyncClient.
    """

    def __init__(
        self, pool: ConnectionPool[Any], *, doorbell: bool = True, timeout: Duration = 5.0
    ) -> None:
        seconds = duration(timeout).total_seconds()
        self._set(BlockingTransport(seconds, doorbell=doorbell, pool=pool))

    def _set(self, transport: BlockingTransport) -> None:
        self._transport = transport
        self._verbs = Verbs[Joinable](transport)

    @classmethod
    def open(
        cls,
        database: str | Settings | ConnectionPool[Any],
        *,
        timeout: Duration | None = None,
        doorbell: bool | None = None,
    ) -> Self:
        """Return a client for a database URL, for Settings, or for an open psycopg pool. Connects
        at the first call.

        timeout: None takes the setting (PGQUEUE_ENQUEUE_TIMEOUT, 5 s). doorbell: None takes the
        setting (PGQUEUE_DOORBELL, on). Raises SettingsError for a URL that is none.
        """
        if isinstance(database, ConnectionPool):
            return cls(
                database,
                timeout=5.0 if timeout is None else timeout,
                doorbell=doorbell is None or doorbell,
            )
        settings = Settings(database_url=database) if isinstance(database, str) else database
        _ = settings.conninfo
        seconds = duration(settings.enqueue_timeout if timeout is None else timeout).total_seconds()
        client = cls.__new__(cls)
        client._set(
            BlockingTransport(
                seconds,
                doorbell=settings.doorbell if doorbell is None else doorbell,
                make=lambda: open_blocking_pool(settings, timeout=seconds),
            )
        )
        return client

    @classmethod
    def from_env(cls) -> Self:
        """Return a client for the settings in the environment (DATABASE_URL, PGQUEUE_*). Raises
        SettingsError with every problem."""
        return cls.open(settings_from())

    @property
    def pool(self) -> ConnectionPool[Any]:
        """The pool of connections, open."""
        return self._transport.open()

    def close(self) -> None:
        """Finish the calls under way and the last ring of the doorbell. Closes the pool that the
        client opened; a pool that was given stays open."""
        finished(self._transport.close())

    def __enter__(self) -> Self:
        self._transport.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # For producers

    @overload
    def enqueue(
        self, task: Task[P], payload: P, **options: Unpack[Options[Joinable]]
    ) -> Ticket: ...

    @overload
    def enqueue(self, task: str, payload: Any, **options: Unpack[Options[Joinable]]) -> Ticket: ...

    def enqueue(
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
        connection: Joinable | None = None,
    ) -> Ticket:
        """Store one job; it is durable when this returns.

        task: a Task, or the name of a job type. job_id: any text of 1 to 255 characters; None makes
        one up. priority: 0 (first) to 9; None is 5. run_after: an aware datetime; or delay: counted
        from the database's now. max_attempts: 1 to 1000; None takes the type's. filled: members
        that are added to the payload, and are ignored when payloads are compared.

        connection: joins the transaction of that connection. The job is stored when the caller
        commits, and not at all after a rollback. Call `notify` after the commit to have the job
        started at once; in Django, by `transaction.on_commit(client.notify)`.

        Raises RateLimited and DuplicatePayload, which leave the caller's transaction usable, and
        UnknownType, NotAllowed, InvalidJob.
        """
        return finished(
            self._verbs.enqueue(
                task,
                payload,
                job_id=job_id,
                user_id=user_id,
                queue=queue,
                priority=priority,
                run_after=run_after,
                delay=delay,
                max_attempts=max_attempts,
                filled=filled,
                connection=connection,
            )
        )

    def try_enqueue(self, job: AnyJob, *, connection: Joinable | None = None) -> Ticket:
        """Store one job, as by `enqueue`. A refusal (RateLimited, DuplicatePayload) is the ticket's
        `error` instead of an exception."""
        return finished(self._verbs.try_enqueue(job, connection=connection))

    def enqueue_many(
        self, jobs: Sequence[AnyJob], *, connection: Joinable | None = None
    ) -> list[Ticket]:
        """Store up to 10,000 jobs in one commit. A ticket for each job, in order; a refused one
        carries its `error`. Raises UnknownType or InvalidJob for the whole, and then nothing is
        stored."""
        return finished(self._verbs.enqueue_many(jobs, connection=connection))

    def notify(self, queue: str = "default", jobs: int = 1) -> None:
        """Wake sleeping workers of a queue: call it after the commit of a transaction that enqueued
        jobs with `connection=`. Returns at once."""
        self._verbs.notify(queue, jobs)

    # For producers and operators

    def get(self, job_id: str) -> JobView:
        """Return the state of a job. Raises JobNotFound."""
        return finished(self._verbs.get(job_id))

    def cancel(self, job_id: str) -> None:
        """Cancel a job: a waiting one ends at once, a running one loses its lease. Raises
        JobNotFound, and WrongState when it has ended."""
        finished(self._verbs.cancel(job_id))

    # For operators

    def replay(self, job_id: str, payload: Any = None) -> None:
        """Send a dead or cancelled job back to its queue, with attempts from 0. A payload given
        here replaces the old one, which stays in the history. Raises JobNotFound, WrongState."""
        finished(self._verbs.replay(job_id, payload))

    def replay_many(
        self,
        filters: DeadFilter,
        *,
        rate: float = 50.0,
        limit: int = MOST_AT_ONCE,
        dry_run: bool = False,
    ) -> Replayed:
        """Send dead jobs back, the longest dead first. rate: jobs a second. limit: at most 10,000 a
        call."""
        return finished(self._verbs.replay_many(filters, rate=rate, limit=limit, dry_run=dry_run))

    def dead_letters(
        self,
        filters: DeadFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: tuple[datetime, UUID] | None = None,
    ) -> list[JobView]:
        """Return a page of the dead-letter queue, newest first. cursor: (dead_at, id) of the last
        job of the page before."""
        return finished(self._verbs.dead_letters(filters, limit=limit, cursor=cursor))

    def count_dead(self, filters: DeadFilter = EVERYTHING) -> int:
        """Count the dead jobs that pass the filters; counting stops at 100,000."""
        return finished(self._verbs.count_dead(filters))

    def delete_dead(self, job_id: str) -> None:
        """Take a job out of the dead-letter queue: it becomes cancelled. Raises JobNotFound,
        WrongState."""
        finished(self._verbs.delete_dead(job_id))

    def pause(self, queue: str) -> None:
        """Stop claims from a queue, at once and for all workers. Running jobs go on."""
        finished(self._verbs.pause(queue))

    def resume(self, queue: str) -> None:
        """End a pause."""
        finished(self._verbs.resume(queue))

    def stats(self) -> Stats:
        """Return the number of jobs in each state, and how the last 15 minutes went."""
        return finished(self._verbs.stats())

    def report(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of sql/monitoring/<name>.sql, as dicts."""
        return finished(self._verbs.report(name))

    def run(
        self, statement: str, values: Parameters = NOTHING, *, connection: Joinable | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of sql/queries/<statement>.sql, as dicts."""
        return finished(self._verbs.run(statement, values, connection=connection))
