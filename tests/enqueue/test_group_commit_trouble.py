"""Enqueues that share a commit, when something is wrong with one of them, with the group, or with
those who wait."""

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.enqueue import group_commit as sharing
from pgqueue.errors import InvalidJob
from pgqueue.job import NewJob, Ticket
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.support.factories import a_type, sql, value
from tests.support.scene import a_turn, link, published, registered, until

Connection = AsyncConnection[Any]


@task("test.queued", queue="elsewhere")
async def queued(job: Any) -> None: ...


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await a_type(connection, job_type="test.job")
    async with AsyncClient.open(settings) as opened:
        yield opened


class Stuck:
    """The first flight waits until it may go on."""

    def __init__(self, client: AsyncClient) -> None:
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self._one = client._transport.group_commit._one
        client._transport.group_commit._one = self.one

    async def one(self, values: Any) -> Any:
        self.begun.set()
        await self.go_on.wait()
        return await self._one(values)


async def test_those_who_gave_up_do_not_stand_in_the_way_of_others(client: AsyncClient) -> None:
    stuck = Stuck(client)
    first = asyncio.create_task(client.enqueue("test.job", {}))
    await stuck.begun.wait()
    gone = [
        asyncio.create_task(client.enqueue("test.job", {})) for _ in range(sharing.MAX_GROUP_JOBS)
    ]
    there = [
        asyncio.create_task(client.enqueue("test.job", {}))
        for _ in range(sharing.MAX_GROUP_JOBS + 5)
    ]
    await a_turn()
    for caller in gone:
        caller.cancel()
    stuck.go_on.set()
    assert all(
        isinstance(ticket, Ticket)
        for ticket in await asyncio.wait_for(asyncio.gather(first, *there), 20)
    )


async def test_a_client_is_closed_although_all_who_waited_gave_up(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, job_type="test.job")
    async with AsyncClient.open(settings) as client:
        await asyncio.gather(*(client.enqueue("test.job", {"n": n}) for n in range(5)))
        caller = asyncio.create_task(client.enqueue("test.job", {}))
        await a_turn()
        caller.cancel()


async def test_whatever_is_wrong_with_a_group_everybody_in_it_is_answered(
    client: AsyncClient,
) -> None:
    async def broken(values: Any) -> Any:
        raise KeyError("nobody thought of it")

    client._transport.group_commit._group = broken
    tickets = await asyncio.wait_for(
        asyncio.gather(*(client.enqueue("test.job", {"n": n}) for n in range(5))), 20
    )
    assert all(ticket.created for ticket in tickets)


async def test_a_job_type_that_cannot_be_written_is_refused(client: AsyncClient) -> None:
    for name in ("t\ud800", "", "t\0", "x" * 300):
        with pytest.raises(InvalidJob):
            await client.enqueue(name, {})


async def test_a_payload_that_is_too_much_for_postgres_is_its_own_caller_s_trouble(
    client: AsyncClient,
) -> None:
    deep = msgspec.Raw(b"[" * 30_000 + b"]" * 30_000)
    jobs = [client.enqueue("test.job", deep if n == 3 else {"n": n}) for n in range(6)]
    answers = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(answer, Ticket) for answer in answers] == [n != 3 for n in range(6)]


async def test_a_group_carries_no_more_than_its_load(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_GROUP_CHARACTERS", 1_000)
    groups: list[int] = []
    group = client._transport.group_commit._group

    async def counted(values: Any) -> Any:
        groups.append(len(msgspec.json.decode(values["jobs"])))
        return await group(values)

    client._transport.group_commit._group = counted
    tickets = await asyncio.gather(*(client.enqueue("test.job", "x" * 398) for _ in range(7)))
    assert all(ticket.created for ticket in tickets)
    assert groups == [2, 2, 2], "and one that went alone"


async def test_a_group_that_meets_a_lock_is_tried_once_and_distrusts_no_connection(
    client: AsyncClient, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    execute = client._transport.execute

    async def counted(one: Any, statement: str, *rest: Any) -> Any:
        tried.append(statement)
        return await execute(one, statement, *rest)

    monkeypatch.setattr(client._transport, "execute", counted)
    monkeypatch.setattr(client._transport, "distrust", None)
    async with await psycopg.AsyncConnection.connect(settings.conninfo) as other:
        await other.execute("SELECT enqueue_job('test.job', '{}', job_id => 'taken')")
        waiting = asyncio.create_task(client.enqueue("test.job", {}))
        taken = asyncio.create_task(client.enqueue("test.job", {}, job_id="taken"))
        others = [asyncio.create_task(client.enqueue("test.job", {"n": n})) for n in range(3)]
        await asyncio.wait_for(asyncio.gather(waiting, *others), 20)
        assert tried.count("enqueue_group") == 1
        await other.rollback()
    assert (await taken).created


async def test_a_bulk_whose_reply_was_lost_says_created_of_its_own_jobs(
    client: AsyncClient, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(connection, settings, queued)
    execute = client._transport.execute
    lost: list[str] = []

    async def losing(one: Any, statement: str, *rest: Any) -> Any:
        rows = await execute(one, statement, *rest)
        if statement == "enqueue_jobs" and not lost:
            lost.append(statement)
            raise psycopg.OperationalError("the connection is lost")
        return rows

    monkeypatch.setattr(client._transport, "execute", losing)
    async with link(settings) as one:
        await registered(one, "w-1", {"elsewhere": 1})
        await one.run("sleep_worker", {"worker": "w-1"})
    await client.enqueue(queued, {}, job_id="earlier")
    await sql(connection, "UPDATE job_logs SET created_at = created_at - interval '1 minute'")
    tickets = await client.enqueue_many(
        [NewJob(queued, {"n": 1})] + [NewJob(queued, {}, job_id=one) for one in ("a", "earlier")]
    )
    assert [ticket.created for ticket in tickets] == [True, True, False]
    assert await value(connection, "SELECT count(*) FROM job_logs") == 3
    await until(lambda: _nobody_sleeps(connection))


async def _nobody_sleeps(connection: Connection) -> bool:
    return not await sql(connection, "SELECT 1 FROM job_workers WHERE asleep")


async def test_only_an_object_can_be_filled_in(client: AsyncClient) -> None:
    for payload in (None, [1], "x", 1):
        with pytest.raises(InvalidJob, match="object"):
            await client.enqueue("test.job", payload, filled={"x": 1})
