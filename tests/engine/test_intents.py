"""`job.intend()`: what cannot be taken back is announced first, and whoever comes after an attempt
that was not heard of again is told. And `job.receipt`: what there is to show for it afterwards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job, ThreadJob
from pgqueue.client import AsyncClient
from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.errors import DependencyDown, Discard, LeaseLost, Retry, Snooze
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from pgqueue.testing import run, working
from pgqueue.worker.attempt_writes import AttemptWrites
from pgqueue.worker.claim_rows import claim_from
from pgqueue.worker.inflight import InFlight
from pgqueue.worker.worker import Worker
from tests.support.factories import a_job, sql, the_job, value
from tests.support.scene import claim, link, published, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
Part = Callable[[Job[Any]], Awaitable[None]]


async def intends(job: Job[Any]) -> None:
    await job.intend()


def raises(error: BaseException) -> Part:
    async def part(job: Job[Any]) -> None:
        raise error

    return part


def intends_and_raises(error: BaseException) -> Part:
    async def part(job: Job[Any]) -> None:
        await job.intend()
        raise error

    return part


async def intends_and_hangs(job: Job[Any]) -> None:
    await job.intend()
    await asyncio.Event().wait()


class Attempts:
    """A task whose first attempt does the first part, its second the second, and all after that the
    last. `told` is what each of them saw in `job.uncertain`."""

    def __init__(self, *parts: Part, **options: Any) -> None:
        self.told: list[bool] = []

        @task("test.job", **options)
        async def handler(job: Job[Any]) -> None:
            self.told.append(job.uncertain)
            await parts[min(len(self.told), len(parts)) - 1](job)

        self.task = handler


async def intent(connection: Connection) -> Any:
    return await value(connection, "SELECT intent_at FROM job_logs WHERE job_id = 'j'")


async def rests(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return bool(row["lease"] > 0 and row["status"] != "processing")


@asynccontextmanager
async def at_work(
    connection: Connection, settings: Settings, *tasks: Task[Any]
) -> AsyncIterator[tuple[AsyncClient, Worker]]:
    await published(connection, settings, *tasks)
    async with AsyncClient.open(settings) as client, working(settings, *tasks) as worker:
        yield client, worker


async def perform(connection: Connection, settings: Settings, attempts: Attempts) -> dict[str, Any]:
    """The row after the first attempt at a new job."""
    async with at_work(connection, settings, attempts.task) as (client, _):
        await client.enqueue(attempts.task, {}, job_id="j")
        await until(lambda: rests(connection))
    return await the_job(connection, "j")


async def perform_again(
    connection: Connection, settings: Settings, attempts: Attempts
) -> dict[str, Any]:
    """The row after one more attempt, which is due at once."""
    lease = (await the_job(connection, "j"))["lease"]
    await sql(connection, "UPDATE job_logs SET run_after = now()")

    async def over() -> bool:
        row = await the_job(connection, "j")
        return bool(row["lease"] > lease and row["status"] != "processing")

    async with at_work(connection, settings, attempts.task):
        await until(over)
    return await the_job(connection, "j")


# --- before


async def test_an_intent_is_in_the_table_when_intend_returns_and_goes_with_the_completion(
    connection: Connection, settings: Settings
) -> None:
    seen = []

    async def looks(job: Job[Any]) -> None:
        seen.append(await intent(connection))
        await job.intend()
        seen.append(await intent(connection))

    row = await perform(connection, settings, Attempts(looks))
    assert seen[0] is None
    assert seen[1] is not None
    assert (row["status"], row["intent_at"]) == ("completed", None)


async def test_an_intent_outlives_a_crash_of_the_database_server(
    installed: dict[int, Path], postgres_major: int
) -> None:
    """Nobody writes the log but who commits: an intent that was only on its way would be gone."""
    if postgres_major not in installed:
        pytest.skip(f"Postgres {postgres_major} is not installed here")
    with EmbeddedServer({"wal_writer_delay": "10s"}, binaries=installed[postgres_major]) as server:
        await migrate(server.url())
        async with await psycopg.AsyncConnection.connect(
            server.url(), autocommit=True
        ) as connection:
            await a_job(connection, job_id="j")
        async with link(Settings(database_url=server.url())) as one:
            ((id, lease, *_),) = await claim(one)
            assert (
                len(
                    await one.run(
                        "intend_effects", {"ids": [id], "leases": [lease], "worker": "w-1"}
                    )
                )
                == 1
            )
            server.restart("immediate")
        async with await psycopg.AsyncConnection.connect(
            server.url(), autocommit=True
        ) as connection:
            assert await intent(connection) is not None


async def test_many_intents_at_once_share_a_statement(
    connection: Connection, settings: Settings
) -> None:
    begun: list[str] = []
    gate = asyncio.Event()

    async def together(job: Job[Any]) -> None:
        begun.append(job.job_id)
        await gate.wait()
        await job.intend()

    attempts = Attempts(together)
    async with at_work(connection, settings, attempts.task) as (client, worker):
        before = worker.writes._link.statements
        await client.enqueue_many([NewJob(attempts.task, {}) for _ in range(50)])
        await until(lambda: len(begun) == 50)
        gate.set()
        await until(lambda: all_completed(connection))
        assert worker.writes._link.statements - before <= 2, (
            "the first, and all that gathered while it was under way"
        )


async def all_completed(connection: Connection) -> bool:
    return not await value(connection, "SELECT count(*) FROM job_logs WHERE status <> 'completed'")


async def test_an_attempt_that_lost_its_lease_is_told_and_does_not_do_it(
    connection: Connection, settings: Settings
) -> None:
    """As a worker that was frozen, and wakes up when the job is somebody else's."""
    begun, gate = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def freezes(job: Job[Any]) -> None:
        begun.set()
        await gate.wait()
        try:
            await job.intend()
        except LeaseLost:
            done.append("told")
            raise
        done.append("sent")

    attempts = Attempts(freezes)
    async with at_work(connection, settings, attempts.task) as (client, worker):
        await client.enqueue(attempts.task, {}, job_id="j")
        await begun.wait()
        # As a sweep elsewhere rescues it; the next lease is another worker's.
        await sql(
            connection,
            (
                "UPDATE job_logs SET lease = lease + 1, locked_by = 'w-2', lease_until = now() + "
                "interval '1 h'"
            ),
        )
        gate.set()
        await until(lambda: not worker.inflight.attempts)
        assert worker.inflight.counters.stale_writes == 2, "what it announced, and how it ended"
    assert done == ["told"]
    row = await the_job(connection, "j")
    assert (row["status"], row["lease"], row["intent_at"]) == ("processing", 2, None)


async def test_one_lost_lease_does_not_keep_others_in_the_statement_from_their_intents(
    connection: Connection, settings: Settings
) -> None:
    begun: list[str] = []
    gate = asyncio.Event()
    told: dict[str, bool] = {}

    async def together(job: Job[Any]) -> None:
        begun.append(job.job_id)
        await gate.wait()
        try:
            await job.intend()
            told[job.job_id] = True
        except LeaseLost:
            told[job.job_id] = False
            raise

    attempts = Attempts(together)
    async with at_work(connection, settings, attempts.task) as (client, _):
        await client.enqueue_many(
            [NewJob(attempts.task, {}, job_id=f"j{number}") for number in range(3)]
        )
        await until(lambda: len(begun) == 3)
        await client.cancel("j1")
        gate.set()
        await until(lambda: len(told) == 3)
    assert told == {"j0": True, "j1": False, "j2": True}


async def test_a_stale_lease_in_one_statement_with_the_current_one_of_its_job_is_told(
    connection: Connection, settings: Settings
) -> None:
    """Cancelled, replayed and claimed again by the same worker: two attempts of one job, and only
    one may go on."""
    row = await a_job(connection, job_id="j")
    async with link(settings) as one:
        (first,) = await claim(one)
        await sql(connection, "SELECT cancel_job('j')")
        await sql(connection, "SELECT replay_job('j')")
        (second,) = await claim(one)
        writes = AttemptWrites(one, InFlight({"default": 2}, "w-1"), settings)
        attempts = [claim_from(attempt, "default") for attempt in (first, second)]
        answers = await asyncio.gather(*map(writes.intend, attempts), return_exceptions=True)
    assert first[0] == second[0] == str(row["id"])
    assert [type(answer) for answer in answers] == [LeaseLost, type(None)]


# --- after


@pytest.mark.parametrize(
    "ending",
    [
        Retry("450 not now"),
        Discard("550 no such user"),
        Snooze("1h"),
        DependencyDown("elsewhere", "535 wrong password"),
    ],
    ids=lambda ending: type(ending).__name__,
)
async def test_an_attempt_that_knows_that_it_failed_takes_its_intent_back(
    connection: Connection, settings: Settings, ending: Exception
) -> None:
    row = await perform(connection, settings, Attempts(intends_and_raises(ending)))
    assert row["status"] in ("failed", "dlq", "enqueued")
    assert row["intent_at"] is None


@pytest.mark.parametrize(
    ("part", "options"),
    [
        (intends_and_raises(Retry("timed out", uncertain=True)), {}),
        (intends_and_raises(RuntimeError("it broke")), {}),
        (intends_and_raises(LookupError("a mistake")), {}),
        (intends_and_hangs, {"timeout": 0.1}),
    ],
    ids=["uncertain retry", "any exception", "mistake", "timeout"],
)
async def test_after_one_that_does_not_know_the_next_is_uncertain(
    connection: Connection, settings: Settings, part: Part, options: dict[str, Any]
) -> None:
    attempts = Attempts(part, intends, **options)
    row = await perform(connection, settings, attempts)
    assert row["status"] == "failed"
    assert row["intent_at"] is not None
    row = await perform_again(connection, settings, attempts)
    assert attempts.told == [False, True]
    assert (row["status"], row["intent_at"]) == ("completed", None)


async def test_after_one_that_a_stopping_worker_gave_back_the_next_is_uncertain(
    connection: Connection, settings: Settings
) -> None:
    attempts = Attempts(intends_and_hangs, intends)
    settings = settings.with_(shutdown_timeout=timedelta())
    async with at_work(connection, settings, attempts.task) as (client, _):
        await client.enqueue(attempts.task, {}, job_id="j")
        await until(lambda: has_intent(connection))
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
    await perform_again(connection, settings, attempts)
    assert attempts.told == [False, True]


async def has_intent(connection: Connection) -> bool:
    return await intent(connection) is not None


async def test_without_an_intent_nothing_is_uncertain(
    connection: Connection, settings: Settings
) -> None:
    attempts = Attempts(raises(RuntimeError("before it came to that")), intends)
    row = await perform(connection, settings, attempts)
    assert row["intent_at"] is None
    await perform_again(connection, settings, attempts)
    assert attempts.told == [False, False]


WAITING = {"status": "failed", "lease": 1, "run_after": timedelta(minutes=-1)}
DIED = {"status": "processing", "lease_until": timedelta(seconds=-1)}


@pytest.mark.parametrize("intended", [True, False], ids=["intended", "not intended"])
@pytest.mark.parametrize("way", ["claim", "rescue", "probe"])
async def test_whichever_way_it_is_started_again_it_is_told(
    connection: Connection, settings: Settings, way: str, intended: bool
) -> None:
    attempts = Attempts(intends, depends_on="server")
    left = (DIED if way == "rescue" else WAITING) | (
        {"intent_at": timedelta(minutes=-2)} if intended else {}
    )
    await a_job(connection, job_id="j", **left)
    if way == "probe":
        await sql(
            connection,
            """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause)
               VALUES ('server', 'open', now(), now(), '1 s')""",
        )
    row = await (rescued if way == "rescue" else perform_again)(connection, settings, attempts)
    assert attempts.told == [intended]
    assert (row["status"], row["intent_at"]) == ("completed", None)


async def rescued(connection: Connection, settings: Settings, attempts: Attempts) -> dict[str, Any]:
    async with at_work(connection, settings, attempts.task):
        await until(lambda: rests(connection))
    return await the_job(connection, "j")


@pytest.mark.parametrize(
    "part",
    [raises(Retry("450")), intends_and_raises(Retry("450"))],
    ids=["did not intend", "intended too"],
)
async def test_an_attempt_that_failed_for_certain_leaves_the_doubt_about_an_earlier_one(
    connection: Connection, settings: Settings, part: Part
) -> None:
    """It knows of itself alone."""
    await a_job(connection, job_id="j", **DIED, intent_at=timedelta(minutes=-2))
    attempts = Attempts(part, intends)
    row = await rescued(connection, settings, attempts)
    assert row["status"] == "failed"
    assert row["intent_at"] is not None
    await perform_again(connection, settings, attempts)
    assert attempts.told == [True, True]


@pytest.mark.parametrize("status", ["dlq", "cancelled"])
async def test_a_replay_takes_the_doubt_away(
    connection: Connection, settings: Settings, status: str
) -> None:
    attempts = Attempts(intends)
    await a_job(connection, job_id="j", status=status, lease=1, intent_at=timedelta(minutes=-2))
    async with at_work(connection, settings, attempts.task) as (client, _):
        await client.replay("j")
        await until(lambda: all_completed(connection))
    assert attempts.told == [False]


# --- without the database


async def test_while_the_database_is_away_it_waits_and_then_goes_on(
    installed: dict[int, Path],
    postgres_major: int,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if postgres_major not in installed:
        pytest.skip(f"Postgres {postgres_major} is not installed here")
    begun, gate, done = asyncio.Event(), asyncio.Event(), []

    async def waits(job: Job[Any]) -> None:
        begun.set()
        await gate.wait()
        await job.intend()
        done.append(job.attempt)

    attempts = Attempts(waits)
    with EmbeddedServer(binaries=installed[postgres_major]) as server:
        await migrate(server.url())
        settings = settings.with_(database_url=server.url())
        async with await psycopg.AsyncConnection.connect(
            server.url(), autocommit=True
        ) as connection:
            await published(connection, settings, attempts.task)
        async with working(settings, attempts.task) as worker:
            async with AsyncClient.open(settings) as client:
                await client.enqueue(attempts.task, {}, job_id="j")
                await begun.wait()
            server.stop("immediate")
            gate.set()
            await until(lambda: "attempts wait for the database" in caplog.text)
            assert not done
            server.start()
            await until(lambda: worker.inflight.counters.completed == 1)
        async with await psycopg.AsyncConnection.connect(
            server.url(), autocommit=True
        ) as connection:
            row = await the_job(connection, "j")
    assert done == [1]
    assert (row["status"], row["attempt_count"], row["intent_at"]) == ("completed", 1, None)


async def test_one_that_waits_for_the_database_is_stopped_when_its_lease_is_gone(
    connection: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only the connection of the writes finds no database, so that the rest of the worker hears of
    the lease."""
    stopped: list[str] = []

    async def waits(job: Job[Any]) -> None:
        try:
            await job.intend()
        except asyncio.CancelledError:
            stopped.append(job.job_id)
            raise

    attempts = Attempts(waits)
    settings = settings.with_(lease=timedelta(seconds=1))
    async with at_work(connection, settings, attempts.task) as (client, worker):
        with monkeypatch.context() as away:

            async def nobody_there(*_: Any) -> Any:
                raise psycopg.OperationalError("connection refused")

            away.setattr(worker.writes._link, "run", nobody_there)
            await client.enqueue(attempts.task, {}, job_id="j")
            await until(lambda: "attempts wait for the database" in caplog.text)
            await client.cancel("j")
            await until(lambda: stopped == ["j"])
            await until(lambda: not worker.inflight.attempts)
        await client.enqueue(attempts.task, {}, job_id="next")
        await until(lambda: completed(connection, "next"))
    assert await intent(connection) is None


async def completed(connection: Connection, job_id: str) -> bool:
    return bool((await the_job(connection, job_id))["status"] == "completed")


# --- what there is to show, and who has none


async def test_a_receipt_is_stored_with_the_completion_without_addresses_and_cut(
    connection: Connection, settings: Settings
) -> None:
    async def sends(job: Job[Any]) -> None:
        job.receipt = "250 queued for someone@example.com\x00 " + "x" * 1000

    row = await perform(connection, settings, Attempts(sends))
    assert row["status"] == "completed"
    assert row["receipt"].startswith("250 queued for s***@example.com")
    assert len(row["receipt"]) == 500
    async with AsyncClient.open(settings) as client:
        assert (await client.get("j")).receipt == row["receipt"]


async def test_an_attempt_that_failed_has_no_receipt(
    connection: Connection, settings: Settings
) -> None:
    async def fails(job: Job[Any]) -> None:
        job.receipt = "250 ok"
        raise Retry("but then")

    assert (await perform(connection, settings, Attempts(fails)))["receipt"] is None


async def test_a_run_without_database_takes_an_intent_for_stored() -> None:
    @task("test.plain")
    def plain(job: ThreadJob[Any]) -> None:
        job.intend()

    assert (await run(plain, {})).status == "completed"
    assert (await run(Attempts(intends).task, {})).status == "completed"
