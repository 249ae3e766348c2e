"""Enqueueing with the client: what is durable, what is refused, and what a refusal leaves
untouched."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, DuplicatePayload, JobNotFound, NewJob, RateLimited, Status
from pgqueue.attempt import Job
from pgqueue.errors import InvalidJob, SchemaError, UnknownType, WrongState
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import published

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


class Resize(msgspec.Struct):
    image: str
    width: int


@task("image.resize", queue="images", max_attempts=3)
async def resize(job: Job[Resize]) -> None: ...


@task("test.limited", rate_limit=Limit(3, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await published(connection, settings, resize, limited)
    async with AsyncClient.open(settings) as opened:
        yield opened


async def test_a_job_takes_its_type_s_queue_and_attempts(
    client: AsyncClient, connection: Connection
) -> None:
    ticket = await client.enqueue(resize, Resize("a.png", 200), job_id="img-1", user_id="u1")
    assert (ticket.job_id, ticket.status, ticket.created) == ("img-1", Status.ENQUEUED, True)
    row = await the_job(connection, "img-1")
    assert row["payload"] == {"image": "a.png", "width": 200}
    assert (row["user_id"], row["queue"], row["max_attempts"], row["priority"]) == (
        "u1",
        "images",
        3,
        5,
    )


async def test_what_the_caller_says_goes_before_the_type(
    client: AsyncClient, connection: Connection
) -> None:
    moment = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    await client.enqueue(
        "image.resize",
        {"image": "a", "width": 1},
        job_id="j",
        queue="other",
        priority=0,
        run_after=moment,
        max_attempts=1,
    )
    row = await the_job(connection, "j")
    assert (row["queue"], row["priority"], row["run_after"], row["max_attempts"]) == (
        "other",
        0,
        moment,
        1,
    )


async def test_a_delay_counts_from_the_database_s_now(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue(resize, Resize("a", 1), job_id="j", delay="10m")
    row = await the_job(connection, "j")
    assert abs(row["run_after"] - row["created_at"] - timedelta(minutes=10)) < timedelta(seconds=1)


async def test_two_jobs_without_an_id_are_two_jobs(client: AsyncClient) -> None:
    first, second = [await client.enqueue(resize, Resize("a", 1)) for _ in range(2)]
    assert first.created
    assert second.created
    assert first.job_id != second.job_id


async def test_with_a_connection_the_job_is_part_of_the_caller_s_transaction(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    async with await AsyncConnection.connect(settings.conninfo) as own:
        await client.enqueue(resize, Resize("a", 1), job_id="rolled-back", connection=own)
        await own.rollback()
        await client.enqueue(resize, Resize("a", 1), job_id="kept", connection=own)
        assert not await sql(connection, "SELECT 1 FROM job_logs")
        await own.commit()
    assert [row["job_id"] for row in await sql(connection, "SELECT job_id FROM job_logs")] == [
        "kept"
    ]


async def test_refusals_leave_the_caller_s_transaction_usable(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    async with await AsyncConnection.connect(settings.conninfo) as own:
        await client.enqueue(resize, Resize("a", 1), job_id="j", connection=own)
        with pytest.raises(DuplicatePayload):
            await client.enqueue(resize, Resize("a", 2), job_id="j", connection=own)
        for _ in range(3):
            await client.enqueue(limited, {}, user_id="u", connection=own)
        with pytest.raises(RateLimited) as refused:
            await client.enqueue(limited, {}, user_id="u", connection=own)
        await own.commit()
    assert timedelta(minutes=59) < refused.value.retry_after <= timedelta(hours=1)
    assert len(await sql(connection, "SELECT 1 FROM job_logs")) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"payload": {"image": "a"}},
            "the payload does not fit image.resize: Object missing required field `width`",
        ),
        ({"payload": {"image": "a", "width": "wide"}}, "the payload does not fit image.resize"),
        ({"payload": {"image": "a\x00b", "width": 1}}, "NUL"),
        ({"payload": {"image": "\ud800", "width": 1}}, "the payload cannot be written as JSON"),
        ({"job_id": ""}, "job_id is a text of 1 to 255 characters"),
        ({"job_id": "x" * 256}, "job_id is a text of 1 to 255 characters"),
        ({"job_id": "a\nb"}, "job_id contains a control character"),
        ({"user_id": "\x00"}, "user_id contains a control character"),
        ({"priority": 10}, "priority is a whole number from 0 to 9"),
        ({"priority": True}, "priority is a whole number from 0 to 9"),
        ({"max_attempts": 0}, "max_attempts is a whole number from 1 to 1000"),
        ({"run_after": datetime(2026, 1, 1)}, "run_after needs a time zone"),
        (
            {"run_after": datetime(9999, 6, 1, tzinfo=UTC)},
            "run_after is between the years 1970 and 9998",
        ),
        ({"delay": "soon"}, "not a duration"),
        ({"delay": -1}, "a duration is between 0 and 100 years"),
    ],
)
async def test_what_cannot_be_a_job_is_refused_with_a_sentence(
    client: AsyncClient, connection: Connection, arguments: dict[str, Any], sentence: str
) -> None:
    arguments = {"payload": {"image": "a", "width": 1}} | arguments
    with pytest.raises(InvalidJob) as refused:
        await client.enqueue(resize, **arguments)
    assert sentence in str(refused.value)
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


NAN, INFINITE = float("nan"), float("inf")


@dataclass
class Measured:
    value: float


@pytest.mark.parametrize(
    "payload",
    [
        NAN,
        -INFINITE,
        {"a": [1, {"b": NAN}]},
        (INFINITE,),
        {NAN},
        Resize("null", INFINITE),
        Measured(NAN),
    ],
)
async def test_a_number_that_json_has_no_word_for_is_refused(
    client: AsyncClient, connection: Connection, payload: Any
) -> None:
    """The encoder would write null, and a handler would wonder."""
    for job in (
        NewJob("image.resize", payload),
        NewJob("image.resize", {}, filled={"more": payload}),
    ):
        with pytest.raises(InvalidJob, match="NaN or an infinite number"):
            await client.try_enqueue(job)
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {"a": None, "b": 1e15},
        "null",
        "NaN",
        [Resize("null", 1)],
        msgspec.Raw(b"[null]"),
        {"a": msgspec.Raw(b"null")},
    ],
)
async def test_what_is_null_or_only_says_so_is_stored(
    client: AsyncClient, connection: Connection, payload: Any
) -> None:
    await client.enqueue("image.resize", payload, job_id="j")
    assert (await the_job(connection, "j"))["payload"] == json.loads(msgspec.json.encode(payload))


async def test_an_unknown_type_is_refused(client: AsyncClient) -> None:
    with pytest.raises(UnknownType, match=r"unknown job type no\.such"):
        await client.enqueue("no.such", {})
    with pytest.raises(UnknownType):
        await client.enqueue_many([NewJob(resize, Resize("a", 1)), NewJob("no.such", {})])


async def test_a_type_with_a_limit_needs_a_user(client: AsyncClient) -> None:
    with pytest.raises(InvalidJob, match="needs a user_id"):
        await client.enqueue(limited, {})
    with pytest.raises(InvalidJob, match="needs a user_id"):
        await client.enqueue_many([NewJob(limited, {})])


async def test_a_limit_cannot_be_counted_in_a_snapshot(
    client: AsyncClient, settings: Settings
) -> None:
    """Under REPEATABLE READ the count is of the past: it must not be believed, so it is refused."""
    async with await AsyncConnection.connect(settings.conninfo) as own:
        await own.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await client.enqueue(resize, Resize("a", 1), connection=own)
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
            await client.enqueue(limited, {}, user_id="u", connection=own)
        await own.rollback()
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
            await client.enqueue_many([NewJob(limited, {}, user_id="u")], connection=own)


async def test_many_jobs_are_one_commit_and_answered_in_order(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue(resize, Resize("old", 1), job_id="known")
    tickets = await client.enqueue_many(
        [
            NewJob(resize, Resize("a", 1), "z"),
            NewJob(resize, Resize("old", 1), "known"),
            NewJob(resize, Resize("new", 1), "known"),
            NewJob(resize, Resize("b", 1), "a"),
            NewJob(resize, Resize("a", 1), "z"),
            NewJob(resize, Resize("other", 1), "z"),
            NewJob(resize, Resize("c", 1), priority=1, delay=60),
        ]
    )
    assert [ticket.job_id for ticket in tickets[:6]] == ["z", "known", "known", "a", "z", "z"]
    assert [ticket.created for ticket in tickets] == [True, False, False, True, False, False, True]
    assert [type(ticket.error) for ticket in tickets] == [
        type(None), type(None), DuplicatePayload, type(None), type(None), DuplicatePayload,
        type(None),
    ]  # fmt: skip
    (row,) = await sql(
        connection,
        (
            "SELECT count(*) AS rows, count(DISTINCT xmin::text) AS commits FROM job_logs WHERE "
            "job_id <> 'known'"
        ),
    )
    assert row == {"rows": 3, "commits": 1}
    last = await the_job(connection, tickets[6].job_id)
    assert (last["priority"], last["run_after"] > last["created_at"] + timedelta(seconds=59)) == (
        1,
        True,
    )


async def test_one_impossible_item_refuses_the_whole_with_its_index(
    client: AsyncClient, connection: Connection
) -> None:
    with pytest.raises(InvalidJob, match="job 1: priority"):
        await client.enqueue_many(
            [NewJob(resize, Resize("a", 1)), NewJob(resize, Resize("a", 1), priority=99)]
        )
    with pytest.raises(InvalidJob, match="at most 10000 jobs"):
        await client.enqueue_many([NewJob(resize, Resize("a", 1))] * 10_001)
    assert await client.enqueue_many([]) == []
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


async def test_ten_thousand_jobs_go_in_one_call(
    client: AsyncClient, connection: Connection
) -> None:
    tickets = await client.enqueue_many(
        [NewJob(resize, Resize("a", number), f"j{number}") for number in range(10_000)]
    )
    assert sum(ticket.created for ticket in tickets) == 10_000
    again = await client.enqueue_many(
        [NewJob(resize, Resize("a", number), f"j{number}") for number in range(10_000)]
    )
    assert sum(ticket.created for ticket in again) == 0
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_logs")
    assert row["n"] == 10_000


async def test_a_lost_reply_is_answered_by_sending_again(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    """The connection dies between commit and reply, as far as the client can tell; the job is there
    once all the same."""
    async with client.pool.connection() as one:
        pid = one.info.backend_pid
    enqueue = client._transport.execute
    deaths = iter([True])

    async def commit_and_die(own: Any, *arguments: Any) -> Any:
        rows = await enqueue(own, *arguments)
        if next(deaths, False):
            await own.close()
            raise psycopg.OperationalError("the connection is lost")
        return rows

    client._transport.execute = commit_and_die
    ticket = await client.enqueue(resize, Resize("a", 1))
    assert (ticket.created, ticket.status) == (True, Status.ENQUEUED)
    assert pid
    assert len(await sql(connection, "SELECT 1 FROM job_logs")) == 1


@pytest.mark.parametrize("earlier", [False, True], ids=["by this call", "by an earlier one"])
async def test_after_a_lost_reply_a_job_that_ended_meanwhile_counts_as_created_by_its_own_call(
    client: AsyncClient, connection: Connection, earlier: bool
) -> None:
    """A worker was faster than the second try. An HTTP caller must not hear of a conflict."""
    if earlier:
        await client.enqueue(resize, Resize("a", 1), job_id="j")
        await sql(connection, "UPDATE job_logs SET created_at = now() - interval '1 minute'")
    execute = client._transport.execute
    deaths = iter([True])

    async def commit_and_die(own: Any, *arguments: Any) -> Any:
        rows = await execute(own, *arguments)
        if next(deaths, False):
            await client.cancel("j")
            raise psycopg.OperationalError("the connection is lost")
        return rows

    client._transport.execute = commit_and_die
    ticket = await client.enqueue(resize, Resize("a", 1), job_id="j")
    assert (ticket.created, ticket.status) == (not earlier, Status.CANCELLED)


async def test_cancel_ends_a_waiting_job_and_says_why_it_cannot(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue(resize, Resize("a", 1), job_id="j")
    await client.cancel("j")
    row = await the_job(connection, "j")
    assert (row["status"], row["processed_at"] is not None) == ("cancelled", True)
    with pytest.raises(WrongState) as refused:
        await client.cancel("j")
    assert refused.value.status == "cancelled"
    with pytest.raises(JobNotFound):
        await client.cancel("no such")
    with pytest.raises(JobNotFound):
        await client.get("no such")


async def test_a_view_has_its_times_in_utc(client: AsyncClient) -> None:
    await client.enqueue(resize, Resize("a", 1), job_id="j")
    view = await client.get("j")
    assert view.created_at.utcoffset() == timedelta()
    assert abs(view.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert view.history == []
    assert view.payload == {"image": "a", "width": 1}


VERBS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "enqueue": lambda client: client.enqueue(resize, Resize("a", 1)),
    "enqueue_many": lambda client: client.enqueue_many([NewJob(resize, Resize("a", 1))]),
    "get": lambda client: client.get("j"),
    "cancel": lambda client: client.cancel("j"),
    "replay": lambda client: client.replay("j"),
    "dead_letters": lambda client: client.dead_letters(),
    "pause": lambda client: client.pause("default"),
    "stats": lambda client: client.stats(),
    "report": lambda client: client.report("queues"),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_database_without_our_schema_is_told_as_such(
    empty_database_url: str, verb: str
) -> None:
    async with AsyncClient.open(empty_database_url) as client:
        with pytest.raises(SchemaError, match="run pgqueue migrate"):
            await VERBS[verb](client)


async def test_a_schema_that_lacks_what_a_later_one_has_is_told_as_such(
    client: AsyncClient, connection: Connection
) -> None:
    await sql(connection, "ALTER TABLE job_logs RENAME COLUMN receipt TO another")
    with pytest.raises(SchemaError, match="or an older one"):
        await client.get("j")


async def test_a_client_on_a_pool_leaves_it_open(
    client: AsyncClient, connection: Connection
) -> None:
    async with AsyncClient.open(client.pool) as other:
        await other.enqueue(resize, Resize("a", 1), job_id="j")
    assert (await client.get("j")).status is Status.ENQUEUED


async def test_clients_of_many_tasks_at_once_share_one_pool(
    client: AsyncClient, connection: Connection
) -> None:
    await asyncio.gather(*(client.enqueue(resize, Resize("a", number)) for number in range(100)))
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_logs")
    assert row["n"] == 100


async def test_a_job_inserted_by_hand_can_be_read(
    client: AsyncClient, connection: Connection
) -> None:
    await a_job(connection, job_id="by-hand", payload=[1, 2])
    assert (await client.get("by-hand")).payload == [1, 2]
