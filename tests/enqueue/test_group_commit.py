"""Enqueues that come at the same time share a commit, and nothing else: no error, no wait, no
limit."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.enqueue import group_commit as sharing
from pgqueue.errors import DuplicatePayload, InvalidJob, RateLimited
from pgqueue.job import NewJob, Status, Ticket
from pgqueue.settings import Settings
from tests.support.factories import a_type, sql, value
from tests.support.scene import a_turn, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await a_type(connection, job_type="test.job")
    await a_type(connection, job_type="test.limited", limit_count=3, limit_window="1 h")
    await a_type(connection, job_type="test.owned", user_from="owner")
    async with AsyncClient.open(settings) as opened:
        yield opened


async def commits(connection: Connection) -> int:
    return int(await value(connection, "SELECT count(DISTINCT xmin::text) FROM job_logs"))


async def test_what_comes_while_one_is_under_way_goes_in_the_next_commit(
    client: AsyncClient, connection: Connection
) -> None:
    tickets = await asyncio.gather(
        *(client.enqueue("test.job", {"n": n}, job_id=f"j{n}") for n in range(50))
    )
    assert [ticket.job_id for ticket in tickets] == [f"j{n}" for n in range(50)]
    assert all(ticket.created and ticket.status is Status.ENQUEUED for ticket in tickets)
    assert await commits(connection) == 2, "one that came first, and the rest"
    rows = await sql(connection, "SELECT job_id, payload FROM job_logs")
    assert {row["job_id"]: row["payload"]["n"] for row in rows} == {f"j{n}": n for n in range(50)}


async def test_each_hears_of_its_own_refusal_and_the_others_of_none(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue("test.job", {"n": 1}, job_id="known")
    given: list[tuple[str, Any, dict[str, Any]]] = [
        ("test.job", {"n": 0}, {"job_id": "first"}),
        ("test.job", {"n": 1}, {"job_id": "known"}),
        ("test.job", {"n": 2}, {"job_id": "known"}),
        ("test.unknown", {}, {}),
        ("test.owned", {"owner": "a"}, {"user_id": "b"}),
        ("test.owned", {"owner": "a"}, {"job_id": "owned"}),
        *(("test.limited", {"n": n}, {"job_id": f"limited-{n}", "user_id": "u"}) for n in range(5)),
        ("test.job", {"n": 3}, {"job_id": "last"}),
    ]
    answers = await asyncio.gather(
        *(client.enqueue(kind, payload, **options) for kind, payload, options in given),
        return_exceptions=True,
    )
    first, same, other, unknown, foreign, owned, *limited, last = answers
    assert isinstance(first, Ticket)
    assert first.created
    assert isinstance(same, Ticket)
    assert (same.created, same.status) == (False, Status.ENQUEUED)
    assert isinstance(other, DuplicatePayload)
    assert isinstance(unknown, InvalidJob)
    assert "unknown job type" in str(unknown)
    assert isinstance(foreign, InvalidJob)
    assert "owner" in str(foreign)
    assert isinstance(owned, Ticket)
    assert owned.created
    assert [type(answer) for answer in limited].count(Ticket) == 3
    assert [type(answer) for answer in limited].count(RateLimited) == 2
    assert isinstance(last, Ticket)
    assert last.created
    assert await value(connection, "SELECT count(*) FROM job_logs") == 7


async def test_limits_and_duplicates_do_not_take_the_group_apart(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue("test.job", {"n": 1}, job_id="known")
    answers = await asyncio.gather(
        client.enqueue("test.job", {"n": 0}, job_id="first"),
        client.enqueue("test.job", {"n": 1}, job_id="known"),
        client.enqueue("test.job", {"n": 2}, job_id="known"),
        *(client.enqueue("test.limited", {"n": n}, job_id=f"l{n}", user_id="u") for n in range(5)),
        client.enqueue("test.job", {"n": 3}, job_id="last"),
        return_exceptions=True,
    )
    kinds = [type(answer) for answer in answers]
    assert kinds[:3] == [Ticket, Ticket, DuplicatePayload]
    assert (kinds[3:8].count(Ticket), kinds[3:8].count(RateLimited), kinds[8]) == (3, 2, Ticket)
    assert await commits(connection) == 3, "the known one, the one that came first, and the rest"


async def test_one_that_waits_for_somebody_s_open_transaction_holds_up_no_other(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    async with await psycopg.AsyncConnection.connect(settings.conninfo) as other:
        await other.execute("SELECT enqueue_job('test.job', '{}', job_id => 'taken')")
        await other.execute("SELECT enqueue_job('test.limited', '{}', user_id => 'busy')")
        waiting = [
            asyncio.create_task(client.enqueue("test.job", {}, job_id="taken")),
            asyncio.create_task(client.enqueue("test.limited", {}, job_id="l", user_id="busy")),
        ]
        others = [
            asyncio.create_task(client.enqueue("test.job", {"n": n}, job_id=f"j{n}"))
            for n in range(20)
        ]
        await asyncio.wait_for(asyncio.gather(*others), 20)
        assert not any(task.done() for task in waiting)
        await other.rollback()
    for task in waiting:
        assert (await task).created


async def test_a_flight_that_does_not_return_holds_up_nobody_behind_it(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "STUCK_AFTER_SECONDS", 0.01)
    go_on = asyncio.Event()
    group = client._transport.group_commit._group
    flights = 0

    async def stuck(values: Any) -> Any:
        nonlocal flights
        flights += 1
        if flights == 1:
            await go_on.wait()
        return await group(values)

    client._transport.group_commit._group = stuck
    first = [
        asyncio.create_task(client.enqueue("test.job", {"n": n}, job_id=f"a{n}")) for n in range(5)
    ]
    await until(lambda: flights == 1)
    second = [
        asyncio.create_task(client.enqueue("test.job", {"n": n}, job_id=f"b{n}")) for n in range(5)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*second), 20)
        assert any(not task.done() for task in first), "the group that is stuck"
    finally:
        go_on.set()
    await asyncio.gather(*first)


async def test_a_caller_that_gives_up_takes_nobody_along(
    client: AsyncClient, connection: Connection
) -> None:
    tasks = [
        asyncio.create_task(client.enqueue("test.job", {"n": n}, job_id=f"j{n}")) for n in range(10)
    ]
    await a_turn()
    tasks[0].cancel()
    tasks[5].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, Ticket) for answer in answers].count(True) == 8
    assert {row["job_id"] for row in await sql(connection, "SELECT job_id FROM job_logs")} >= {
        f"j{n}" for n in range(10) if n not in (0, 5)
    }


async def test_a_lost_connection_is_made_good_for_the_whole_group(
    client: AsyncClient, connection: Connection
) -> None:
    """The group was stored and its reply lost: sent again, each hears that its job was created, if
    it brought no id."""
    execute = client._transport.execute
    lost: list[str] = []

    async def losing(one: Any, statement: str, *rest: Any) -> Any:
        rows = await execute(one, statement, *rest)
        if statement == "enqueue_group" and not lost:
            lost.append(statement)
            raise psycopg.OperationalError("the connection is lost")
        return rows

    client._transport.execute = losing  # type: ignore[method-assign]  # there is no other way to lose exactly this reply
    tickets = await asyncio.gather(*(client.enqueue("test.job", {"n": n}) for n in range(10)))
    assert lost
    assert all(ticket.created for ticket in tickets)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 10


async def test_a_group_that_was_stored_and_is_then_refused_knows_its_own_jobs(
    client: AsyncClient, connection: Connection
) -> None:
    """Its reply was lost, and the second try met a lock: each then goes alone, and is no duplicate
    of itself."""
    execute = client._transport.execute
    tries: list[str] = []

    async def losing(one: Any, statement: str, *rest: Any) -> Any:
        if statement != "enqueue_group":
            return await execute(one, statement, *rest)
        tries.append(statement)
        if len(tries) > 1:
            raise psycopg.errors.LockNotAvailable("another transaction holds it")
        await execute(one, statement, *rest)
        await sql(connection, "UPDATE job_logs SET status = 'completed', processed_at = now()")
        raise psycopg.OperationalError("the connection is lost")

    client._transport.execute = losing  # type: ignore[method-assign]  # there is no other way to lose exactly this reply
    tickets = await asyncio.gather(*(client.enqueue("test.job", {"n": n}) for n in range(10)))
    assert len(tries) > 1
    assert all(ticket.created for ticket in tickets)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 10


async def test_jobs_given_at_once_start_in_the_order_in_which_they_were_given(
    client: AsyncClient, connection: Connection
) -> None:
    from pgqueue.job import NewJob

    await client.enqueue_many(
        [NewJob("test.job", {"n": n}, job_id=f"{999 - n}") for n in range(100)]
    )
    rows = await sql(connection, "SELECT payload FROM job_logs ORDER BY run_after, id")
    assert [row["payload"]["n"] for row in rows] == list(range(100))
    assert await value(connection, "SELECT bool_and(run_after <= created_at) FROM job_logs")


@pytest.mark.parametrize("job_type", ["test.job", "test.limited"])
async def test_a_payload_of_null_is_a_payload_alone_in_a_group_and_in_a_bulk(
    client: AsyncClient, connection: Connection, job_type: str
) -> None:
    alone = await client.enqueue(job_type, None, user_id="u0")
    group = await asyncio.gather(
        *(client.enqueue(job_type, None, user_id=f"u{n}", job_id=f"j{n}") for n in range(4))
    )
    bulk = await client.enqueue_many(
        [NewJob(job_type, None, user_id="v", job_id=name) for name in ("b", "b", "c")]
    )
    assert [ticket.created for ticket in (alone, *group, *bulk)] == [True] * 6 + [False, True]
    again = await client.enqueue(job_type, None, user_id="v", job_id="b")
    assert (again.created, again.job_id) == (False, "b")
    assert await value(connection, "SELECT count(*) FROM job_logs WHERE payload = 'null'") == 7
