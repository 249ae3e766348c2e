"""Connections that are gone, all at once: while the API is idle and while it is busy, for a moment
and for long.

What can be answered in its time is answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.migrations import migrate
from pgqueue.database.pool import Pool, open_pool
from pgqueue.database.retention import prune
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.enqueue.async_transport import AsyncTransport
from pgqueue.errors import Unavailable
from pgqueue.job import DeadFilter, NewJob
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.chaos.faults.proxy import a_proxy
from tests.support.api import ADMIN, SIGN_IN, SIGNIN, open_api
from tests.support.factories import sql, the_job, value
from tests.support.pooler import pooled
from tests.support.scene import published, until, working

Connection = AsyncConnection[Any]

OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
               AND datname = current_database()"""


@task("test.job")
async def handler(job: Job[Any]) -> None: ...


async def end_all(connection: Connection) -> int:
    """Ends every connection to the database but ours, and waits until they are gone."""
    ended = len(await sql(connection, OTHERS))

    async def gone() -> bool:
        return not await sql(connection, OTHERS)

    await until(gone)
    return ended


def sign_in(number: int) -> dict[str, Any]:
    return SIGN_IN | {"userId": f"u{number}", "jobId": f"j{number}"}


async def sign_ins(api: httpx.AsyncClient, numbers: range) -> set[int]:
    """The statuses that so many at once are answered with."""
    answers = await asyncio.gather(*(api.post(SIGNIN, json=sign_in(number)) for number in numbers))
    return {answer.status_code for answer in answers}


@pytest.mark.parametrize("crowd", [1, 100])
async def test_an_idle_api_whose_connections_are_all_dead_answers_everything(
    settings: Settings, connection: Connection, crowd: int
) -> None:
    async with open_api(settings) as api:
        assert await sign_ins(api, range(50)) == {202}
        assert await end_all(connection) > 2
        assert await sign_ins(api, range(50, 50 + crowd)) == {202}
        await end_all(connection)
        assert (await api.get("/api/jobs/j1")).status_code == 200
        await end_all(connection)
        assert (await api.get("/readyz")).status_code == 200
    assert await value(connection, "SELECT count(*) FROM job_logs") == 50 + crowd


async def test_many_dead_connections_cost_no_wait_each(
    settings: Settings, connection: Connection
) -> None:
    """psycopg_pool's own check waits a second after the first, two after the second."""
    async with open_pool(settings.with_(pool_size=20), timeout=5) as pool:
        await fill(pool, 20)
        await end_all(connection)
        async with asyncio.timeout(5), pool.connection() as one:
            await one.execute("SELECT 1")
        assert pool.get_stats().get("requests_errors", 0) == 0


async def fill(pool: Pool, count: int) -> None:
    """All its connections are made and lie idle."""
    held = [await pool.getconn() for _ in range(count)]
    for one in held:
        await pool.putconn(one)


async def test_a_busy_api_answers_everything_while_connections_end_again_and_again(
    settings: Settings, connection: Connection
) -> None:
    async with open_api(
        settings, request_timeout=timedelta(seconds=10), enqueue_timeout=timedelta(seconds=10)
    ) as api:
        crowd = asyncio.create_task(sign_ins(api, range(400)))
        ended = 0
        for _ in range(8):
            ended += len(await sql(connection, OTHERS))
            await asyncio.sleep(0.1)
        assert await crowd == {202}
        assert ended
    assert await value(connection, "SELECT count(*) FROM job_logs") == 400


async def test_a_transaction_of_a_handler_gets_a_connection_that_lives(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job", max_attempts=1)
    async def transacting(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await own.execute("SELECT 1")

    await published(connection, settings, transacting)
    async with AsyncClient.open(settings) as client, working(settings, transacting):
        for job_id in ("first", "second"):
            await client.enqueue(transacting, {}, job_id=job_id)
            await until(lambda job_id=job_id: ended(connection, job_id))  # type: ignore[misc]
            await end_all(connection)
    assert [row["status"] for row in await sql(connection, "SELECT status FROM job_logs")] == [
        "completed"
    ] * 2


async def ended(connection: Connection, job_id: str) -> bool:
    return (await the_job(connection, job_id))["processed_at"] is not None


async def test_connections_that_went_silent_are_replaced_together(
    settings: Settings, connection: Connection
) -> None:
    """As a firewall forgets them: nothing says that they are gone."""
    port = psycopg.conninfo.conninfo_to_dict(settings.conninfo)["port"]
    async with a_proxy(int(str(port))) as proxy:
        through = settings.with_(
            database_url=str(settings.database_url).replace(f":{port}/", f":{proxy.port}/")
        )
        await published(connection, settings, handler)
        async with AsyncClient.open(through, timeout=10) as client:
            assert isinstance(client.pool, Pool)
            await fill(client.pool, 10)
            for line in proxy.lines:
                line.dead = True
            client.pool.distrust()
            async with asyncio.timeout(4):
                assert (await client.enqueue("test.job", {})).created


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SIGNIN, SIGN_IN),
        ("/api/jobs", {"type": "user.signin.notification", "payload": SIGN_IN}),
        ("/api/admin/send-email", {"to": "a@example.com", "subject": "s", "body": "b"}),
        ("/api/jobs/bulk", {"jobs": [{"type": "user.signin.notification", "payload": SIGN_IN}]}),
    ],
    ids=["sign-in", "job", "email", "bulk"],
)
@pytest.mark.parametrize("removed", [False, True], ids=["row", "tombstone"])
async def test_a_job_that_ends_before_its_enqueue_is_repeated_is_no_duplicate_of_itself(
    settings: Settings,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: Any,
    removed: bool,
) -> None:
    lost: list[str] = []
    execute = AsyncTransport.execute

    async def losing(self: AsyncTransport, one: Any, statement: str, *rest: Any) -> Any:
        rows = await execute(self, one, statement, *rest)
        if statement.startswith("enqueue_") and not lost:
            lost.append(statement)
            await sql(
                connection,
                """UPDATE job_logs SET status = 'completed', processed_at = now() - interval '40 d',
                                                 created_at = now() - interval '41 d',
                                                   id = job_uuid_at(now() - interval '41 d')""",
            )
            if removed:
                assert (await prune(connection, settings)).jobs == 1
            raise psycopg.OperationalError("the connection is lost")
        return rows

    async with open_api(settings) as api:
        monkeypatch.setattr(AsyncTransport, "execute", losing)
        answer = await api.post(path, json=body, headers=ADMIN)
    assert lost
    assert answer.status_code == 202, answer.text
    assert not [one for one in answer.json().get("results", ()) if "error" in one]


class TestAServerOfItsOwn:
    @pytest.fixture
    async def server(self) -> AsyncIterator[EmbeddedServer]:
        with EmbeddedServer({"fsync": "off"}) as server:
            await migrate(server.url())
            yield server

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    async def test_calls_that_come_while_it_restarts_are_answered(
        self, settings: Settings, server: EmbeddedServer, mode: Any
    ) -> None:
        """Refused for half a second, then there."""
        limit = timedelta(seconds=20)
        changes = {"database_url": server.url(), "request_timeout": limit, "enqueue_timeout": limit}
        async with open_api(settings, **changes) as api:
            assert await sign_ins(api, range(30)) == {202}
            server.stop(mode)
            waiting = asyncio.create_task(sign_ins(api, range(30, 60)))
            reading = asyncio.create_task(api.get("/api/jobs/j1"))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await asyncio.to_thread(server.start)
            assert await waiting == {202}
            assert (await reading).status_code == 200

    async def test_the_first_call_after_a_long_outage_goes_through(
        self, settings: Settings, server: EmbeddedServer
    ) -> None:
        """However long nothing could be reached: no wait grows with it."""
        async with open_api(
            settings, database_url=server.url(), request_timeout=timedelta(milliseconds=300)
        ) as api:
            assert await sign_ins(api, range(5)) == {202}
            server.stop()
            for _ in range(10):
                assert await sign_ins(api, range(5, 8)) == {503}
            server.start()
            api.timeout = httpx.Timeout(30)
        async with (
            open_pool(settings.with_(database_url=server.url()), timeout=2) as pool,
            AsyncClient.open(pool) as client,
        ):
            await fill(pool, 10)
            server.stop()
            impatient = AsyncClient(pool, doorbell=False, timeout=0.2)
            for _ in range(15):
                with pytest.raises(Unavailable, match=r"refused|ended|lost|starting"):
                    await impatient.stats()
            server.start()
            assert await client.stats()

    async def test_a_client_says_why_and_waits_no_longer_than_its_time(
        self, settings: Settings, server: EmbeddedServer
    ) -> None:
        async with AsyncClient.open(
            settings.with_(database_url=server.url()), timeout=0.5
        ) as client:
            server.stop()
            job = NewJob("t", {})
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: client.enqueue("t", {}),
                lambda: client.try_enqueue(job),
                lambda: client.enqueue_many([job]),
                lambda: client.get("j"),
                lambda: client.cancel("j"),
                lambda: client.replay("j"),
                lambda: client.replay_many(DeadFilter()),
                client.dead_letters,
                client.count_dead,
                lambda: client.delete_dead("j"),
                lambda: client.pause("q"),
                lambda: client.resume("q"),
                client.stats,
            ]
            for call in calls:
                with pytest.raises(Unavailable, match="connection refused"):
                    async with asyncio.timeout(5):
                        await call()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "wr0ng"}, "the password was refused"),
        ({"dbname": "nosuch"}, "there is no such database"),
        ({"host": "nosuch.invalid"}, "the name of the host is not known"),
        ({"port": "1"}, "connection refused"),
    ],
    ids=["password", "database", "host", "port"],
)
async def test_a_client_says_what_is_wrong_with_its_url(
    database_url: str, wrong: dict[str, Any], words: str
) -> None:
    url = psycopg.conninfo.make_conninfo(database_url, **wrong)
    async with asyncio.timeout(10), AsyncClient.open(url, timeout="500ms") as client:
        with pytest.raises(Unavailable) as raised:
            await client.enqueue("t", {})
    assert words in str(raised.value)
    assert "wr0ng" not in str(raised.value)


async def test_a_lock_that_is_not_let_go_is_waited_for_no_longer_than_that(
    settings: Settings, connection: Connection
) -> None:
    await published(connection, settings, handler)
    async with (
        await AsyncConnection.connect(settings.conninfo) as other,
        await AsyncConnection.connect(settings.conninfo) as own,
        AsyncClient.open(settings, timeout=0.5) as client,
    ):
        await other.execute("SELECT enqueue_job('test.job', '{}', job_id => 'taken')")
        for mine in (None, own):
            with pytest.raises(Unavailable, match="timed out"):
                async with asyncio.timeout(5):
                    await client.enqueue("test.job", {}, job_id="taken", connection=mine)


async def test_a_pooler_whose_connections_ended_refuses_no_call(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    async with pooled(str(settings.database_url), tmp_path) as url:
        through = settings.with_(
            database_url=url,
            pgbouncer=True,
            request_timeout=timedelta(seconds=10),
            enqueue_timeout=timedelta(seconds=10),
        )
        async with open_api(through) as api:
            assert await sign_ins(api, range(20)) == {202}
            await end_all(connection)
            assert await sign_ins(api, range(20, 60)) == {202}
            assert (await api.get("/readyz")).status_code == 200
