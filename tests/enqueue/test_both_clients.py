"""Every verb, in the client that awaits and in the one that blocks: the same arguments, answers and
errors."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import args_row, dict_row, scalar_row

from pgqueue import (
    AsyncClient,
    Client,
    DuplicatePayload,
    Job,
    JobNotFound,
    Limit,
    NewJob,
    RateLimited,
    Status,
    Unavailable,
    task,
)
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.errors import InvalidJob, SchemaError, SettingsError, UnknownType, WrongState
from pgqueue.job import DeadFilter
from pgqueue.settings import Settings
from tests.support.both_clients import KINDS, Either, Kind
from tests.support.factories import a_job, sql, value
from tests.support.pooler import pooled
from tests.support.scene import link, published, registered, until

Connection = AsyncConnection[Any]

VERBS = [
    name for name, member in vars(Client).items() if callable(member) and not name.startswith("_")
]


@task("test.job")
async def handler(job: Job[Any]) -> None: ...


@task("test.limited", rate_limit=Limit(1, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture
async def client(kind: Kind, connection: Connection, settings: Settings) -> AsyncIterator[Either]:
    await published(connection, settings, handler, limited)
    async with kind.open(settings) as opened:
        yield opened


def test_they_have_the_same_verbs() -> None:
    awaiting = {name for name in dir(AsyncClient) if not name.startswith("_")}
    assert awaiting == {name for name in dir(Client) if not name.startswith("_")}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_same_arguments_and_says_the_same_in_both(verb: str) -> None:
    blocking, awaiting = getattr(Client, verb), getattr(AsyncClient, verb)
    ours, theirs = inspect.signature(blocking), inspect.signature(awaiting)
    arguments = [(one.name, one.kind, one.default) for one in ours.parameters.values()]
    assert arguments == [(one.name, one.kind, one.default) for one in theirs.parameters.values()]
    first = (inspect.getdoc(blocking) or "").split(".")[0]
    assert first == (inspect.getdoc(awaiting) or "").split(".")[0] != ""


async def test_a_job_is_stored_and_can_be_looked_at(client: Either) -> None:
    ticket = await client.enqueue(
        handler, {"n": 1}, job_id="j", user_id="u", priority=1, delay="1h"
    )
    assert (ticket.job_id, ticket.status, ticket.created) == ("j", Status.ENQUEUED, True)
    view = await client.get("j")
    assert (view.payload, view.user_id, view.priority) == ({"n": 1}, "u", 1)
    assert view.run_after - view.created_at > timedelta(minutes=59)


async def test_the_same_job_again_is_known_and_another_payload_is_refused(client: Either) -> None:
    await client.enqueue(handler, {"n": 1}, job_id="j")
    assert not (await client.enqueue(handler, {"n": 1}, job_id="j")).created
    with pytest.raises(DuplicatePayload):
        await client.enqueue(handler, {"n": 2}, job_id="j")
    assert isinstance((await client.try_enqueue(NewJob(handler, 2, "j"))).error, DuplicatePayload)


async def test_a_limit_refuses_and_says_when_a_place_comes_free(client: Either) -> None:
    await client.enqueue(limited, {}, user_id="u")
    with pytest.raises(RateLimited) as refused:
        await client.enqueue(limited, {}, user_id="u")
    assert timedelta() < refused.value.retry_after <= timedelta(hours=1)
    ticket = await client.try_enqueue(NewJob(limited, {}, user_id="u"))
    assert isinstance(ticket.error, RateLimited)
    assert (ticket.status, ticket.created) == (None, False)


async def test_many_jobs_get_a_ticket_each(client: Either) -> None:
    jobs = [NewJob(handler, {"n": n}, f"j{n}") for n in range(250)]
    assert all(ticket.created for ticket in await client.enqueue_many(jobs))
    tickets = await client.enqueue_many([jobs[0], NewJob(handler, {}, "j1"), NewJob(handler, {})])
    assert [ticket.created for ticket in tickets] == [False, False, True]
    assert [type(ticket.error) for ticket in tickets] == [
        type(None),
        DuplicatePayload,
        type(None),
    ]
    with pytest.raises(InvalidJob, match="job 1: priority"):
        await client.enqueue_many([jobs[0], NewJob(handler, {}, priority=99)])
    assert await client.enqueue_many([]) == []


async def test_what_cannot_be_a_job_is_refused(client: Either) -> None:
    with pytest.raises(UnknownType):
        await client.enqueue("no.such", {})
    with pytest.raises(InvalidJob, match="JSON"):
        await client.enqueue(handler, object())
    with pytest.raises(TypeError):
        await client.enqueue(handler, {}, nonsense=1)


async def test_an_operator_s_verbs(client: Either, connection: Connection) -> None:
    await client.enqueue(handler, {}, job_id="waiting")
    await client.cancel("waiting")
    with pytest.raises(WrongState):
        await client.cancel("waiting")
    for name in ("get", "cancel", "replay", "delete_dead"):
        with pytest.raises(JobNotFound):
            await getattr(client, name)("no such")
    for number in range(4):
        await a_job(connection, job_id=f"dead{number}", status="dlq")
    assert await client.count_dead() == 4
    page = await client.dead_letters(limit=3)
    last = page[-1]
    assert len(page) + len(await client.dead_letters(cursor=(last.dead_at, last.id))) == 4
    await client.replay("dead0", {"n": 2})
    assert (await client.get("dead0")).payload == {"n": 2}
    await client.delete_dead("dead1")
    some = DeadFilter(job_ids=["dead2"])
    assert (await client.replay_many(some, dry_run=True)).retried == 0
    assert (await client.replay_many(some)).retried == 1
    assert await client.count_dead(DeadFilter(job_type="test.job")) == 1
    stats = await client.stats()
    assert (stats.enqueued, stats.dlq, stats.cancelled, stats.estimated) == (2, 1, 2, False)


PAUSED = "SELECT bool_or(paused) FROM job_queues WHERE queue = 'default'"


async def test_a_queue_is_paused_and_resumed(client: Either, connection: Connection) -> None:
    await client.pause("default")
    assert await value(connection, PAUSED)
    await client.resume("default")
    assert not await value(connection, PAUSED)


@pytest.mark.parametrize("how", ["enqueue", "enqueue_many", "notify"])
async def test_a_sleeping_worker_is_woken(
    client: Either, connection: Connection, settings: Settings, how: str
) -> None:
    async with link(settings) as one:
        await registered(one, "w-1")
        await one.run("sleep_worker", {"worker": "w-1"})
    match how:
        case "enqueue":
            await client.enqueue(handler, {})
        case "enqueue_many":
            await client.enqueue_many([NewJob(handler, {})])
        case _:
            client.client.notify()

    async def awake() -> bool:
        return not await value(connection, "SELECT asleep FROM job_workers")

    await until(awake)


async def test_a_database_without_our_schema_says_so(kind: Kind, empty_database_url: str) -> None:
    async with kind.open(empty_database_url) as client:
        for call in (client.stats(), client.enqueue("t", {}), client.get("j")):
            with pytest.raises(SchemaError, match="run pgqueue migrate"):
                await call


# Opening and closing


async def test_a_client_opens_from_a_url_a_pool_and_the_environment(
    kind: Kind, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(connection, settings, handler)
    url = str(settings.database_url)
    async with kind.open(url) as client:
        await client.enqueue(handler, {})
    async with kind.pool(settings.conninfo) as pool:
        async with kind.open(pool) as client:
            await client.enqueue(handler, {})
            assert client.client.pool is pool
        assert not pool.closed, "it is the application's"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("PGQUEUE_ENQUEUE_TIMEOUT", "7s")
    opened = Either(kind.client.from_env())
    await opened.enqueue(handler, {})
    assert opened.client._transport.timeout == 7
    await opened.close()
    await opened.close()
    for call in (opened.stats(), opened.enqueue(handler, {})):
        with pytest.raises(Unavailable, match="the client is closed"):
            await call
    assert await value(connection, "SELECT count(*) FROM job_logs") == 3


async def test_an_environment_without_a_database_is_refused_at_once(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        kind.client.from_env()


# A caller's transaction


def one_object(*columns: object) -> object:
    return object()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"autocommit": True},
        {"row_factory": dict_row},
        {"row_factory": scalar_row},
        {"row_factory": args_row(one_object)},
        {"prepare_threshold": 0},
        {"options": "-c DateStyle=German -c IntervalStyle=iso_8601"},
    ],
    ids=["plain", "autocommit", "dicts", "scalars", "objects", "prepared", "styles"],
)
async def test_a_caller_s_transaction_is_joined_and_stays_usable(
    kind: Kind, client: Either, connection: Connection, settings: Settings, options: dict[str, Any]
) -> None:
    async with kind.connection(settings.conninfo, **options) as own:
        mine = own.client
        await client.enqueue(limited, {"n": 1}, job_id="j", user_id="u", delay=60, connection=mine)
        with pytest.raises(RateLimited):
            await client.enqueue(limited, {}, user_id="u", connection=mine)
        with pytest.raises(DuplicatePayload):
            await client.enqueue(limited, {"n": 2}, job_id="j", user_id="u", connection=mine)
        many = [NewJob(handler, {}) for _ in range(3)]
        assert all(one.created for one in await client.enqueue_many(many, connection=mine))
        seen = 4 if mine.autocommit else 0
        assert await value(connection, "SELECT count(*) FROM job_logs") == seen
        await own.commit()
    assert await value(connection, "SELECT count(*) FROM job_logs") == 4


async def test_a_rolled_back_transaction_leaves_no_job(
    kind: Kind, client: Either, connection: Connection, settings: Settings
) -> None:
    async with kind.connection(settings.conninfo) as own:
        await client.enqueue(handler, {}, connection=own.client)
        await own.rollback()
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


async def test_what_cannot_carry_a_job_is_refused_before_anything_is_sent(
    kind: Kind, client: Either, settings: Settings
) -> None:
    async with kind.connection(settings.conninfo) as own:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await own.execute("SELECT 1/0")
        with pytest.raises(InvalidJob, match="roll it back"):
            await client.enqueue(handler, {}, connection=own.client)
        await own.close()
        with pytest.raises(InvalidJob, match="closed"):
            await client.enqueue(handler, {}, connection=own.client)
    for wrong in (object(), "postgresql://", 7):
        with pytest.raises(InvalidJob, match=r"takes a psycopg\."):
            await client.enqueue(handler, {}, connection=wrong)
    async with Kind("awaiting" if kind.blocks else "blocking").connection(
        settings.conninfo
    ) as other:
        with pytest.raises(InvalidJob, match=r"takes a psycopg\."):
            await client.enqueue(handler, {}, connection=other.client)


# A database that does not answer


async def test_a_lock_is_waited_for_no_longer_than_the_timeout(
    kind: Kind, client: Either, settings: Settings
) -> None:
    async with (
        kind.connection(settings.conninfo) as other,
        kind.connection(settings.conninfo) as own,
        kind.pool(settings.conninfo) as pool,
        kind.open(settings, timeout=0.3) as impatient,
        kind.open(pool, timeout=0.3) as guest,
    ):
        await other.execute("SELECT enqueue_job('test.job', '{}', job_id => 'taken')")
        for one, mine in ((impatient, None), (impatient, own.client), (guest, None)):
            with pytest.raises(Unavailable, match="timed out"):
                async with asyncio.timeout(5):
                    await one.enqueue(handler, {}, job_id="taken", connection=mine)
        await other.rollback()
        assert own.client.pgconn.transaction_status == psycopg.pq.TransactionStatus.INERROR
        assert (await guest.enqueue(handler, {})).created, "its connection came back"


async def test_a_call_says_why_there_is_no_connection(kind: Kind, database_url: str) -> None:
    for wrong, words in (
        ({"password": "wr0ng"}, "the password was refused"),
        ({"port": "1"}, "connection refused"),
    ):
        url = psycopg.conninfo.make_conninfo(database_url, **wrong)
        async with asyncio.timeout(10), kind.open(url, timeout="300ms") as client:
            with pytest.raises(Unavailable, match=words):
                await client.enqueue("t", {})


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as running:
        yield running


async def test_the_first_call_after_a_restart_goes_through(
    kind: Kind, server: EmbeddedServer
) -> None:
    async with kind.open(server.url(), timeout=0.3) as client:
        for _ in range(2):
            with pytest.raises(SchemaError):
                await client.stats()
            server.stop()
            for _ in range(5):
                with pytest.raises(Unavailable, match=r"refused|ended|lost|starting"):
                    await client.stats()
            server.start()
    async with kind.open(server.url(), timeout=20) as client:
        with pytest.raises(SchemaError):
            await client.stats()
        server.stop()
        waiting = asyncio.create_task(client.stats())
        server.start()
        with pytest.raises(SchemaError):
            await waiting


async def test_connections_that_were_ended_cost_no_call(
    client: Either, connection: Connection
) -> None:
    await asyncio.gather(*(client.enqueue(handler, {}) for _ in range(30)))
    for _ in range(3):
        await sql(
            connection,
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND datname = current_database()""",
        )
        tickets = await asyncio.gather(*(client.enqueue(handler, {}) for _ in range(10)))
        assert all(ticket.created for ticket in tickets)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 60


async def test_a_pooler_in_transaction_mode_is_worked_through(
    kind: Kind, connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    await published(connection, settings, handler, limited)
    async with pooled(str(settings.database_url), tmp_path) as url:
        through = settings.with_(database_url=url, pgbouncer=True)
        async with kind.open(through) as client:
            await asyncio.gather(*(client.enqueue(handler, {}) for _ in range(30)))
            await client.enqueue(limited, {}, user_id="u")
            with pytest.raises(RateLimited):
                await client.enqueue(limited, {}, user_id="u")
    assert await value(connection, "SELECT count(*) FROM job_logs") == 31
