"""One row per job id, for as long as the id is remembered; the same payload is the same job,
another one is refused."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.retention import prune
from pgqueue.job import NewJob, Status
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.support.factories import a_job, sql, the_job, value
from tests.support.scene import published, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@task("test.job")
async def plain(job: Job[Any]) -> None: ...


@task("test.limited", rate_limit=Limit(2, per="1h"), user_from="userId")
async def limited(job: Job[Any]) -> None: ...


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await published(connection, settings, plain, limited)
    async with AsyncClient.open(settings) as opened:
        yield opened


@pytest.mark.parametrize("one", [plain, limited], ids=["plain", "limited"])
async def test_a_thousand_calls_with_the_same_ids_make_one_row_each(
    client: AsyncClient, connection: Connection, one: Any
) -> None:
    """The guard is the unique constraint; for a limited type, the second look under the lock as
    well."""
    jobs = [NewJob(one, {"userId": f"u{n}"}, f"id-{n}", f"u{n}") for n in range(10)]
    tickets = await asyncio.gather(*(client.try_enqueue(job) for job in jobs * 30))
    assert sum(ticket.created for ticket in tickets) == 10
    assert all(ticket.error is None and ticket.status is Status.ENQUEUED for ticket in tickets)
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_logs")
    assert row["n"] == 10


async def test_a_duplicate_waits_for_the_first_and_takes_its_answer(
    client: AsyncClient, settings: Settings
) -> None:
    """The first is not yet committed when the second comes; and when the first rolls back, the
    second is the job."""
    for commit in (True, False):
        job_id = f"id-{commit}"
        async with await AsyncConnection.connect(settings.conninfo) as own:
            await client.enqueue(limited, {"userId": "u"}, job_id=job_id, connection=own)
            second = asyncio.create_task(client.enqueue(limited, {"userId": "u"}, job_id=job_id))
            await until(lambda own=own: _somebody_waits(own))
            await (own.commit() if commit else own.rollback())
            assert (await second).created is not commit


async def _somebody_waits(own: Connection) -> bool:
    (row,) = await sql(own, "SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
    return bool(row["n"])


async def test_a_duplicate_is_never_refused_by_the_limit(client: AsyncClient) -> None:
    for number in range(2):
        await client.enqueue(limited, {"userId": "u"}, job_id=f"id-{number}")
    again = await client.try_enqueue(NewJob(limited, {"userId": "u"}, "id-0"))
    assert (again.error, again.created, again.status) == (None, False, Status.ENQUEUED)
    (bulk,) = await client.enqueue_many([NewJob(limited, {"userId": "u"}, "id-1")])
    assert (bulk.error, bulk.created) == (None, False)
    refused = await client.try_enqueue(NewJob(limited, {"userId": "u"}, "id-2"))
    assert type(refused.error).__name__ == "RateLimited"


@pytest.mark.parametrize(
    "other",
    [
        {"payload": {"userId": "u", "n": 2}},
        {"payload": {"userId": "v", "n": 1}, "user_id": "v"},
        {"task": limited},
    ],
    ids=["payload", "user", "type"],
)
async def test_another_payload_user_or_type_under_the_same_id_is_refused(
    client: AsyncClient, other: dict[str, Any]
) -> None:
    same = {"task": plain, "payload": {"userId": "u", "n": 1}, "job_id": "j", "user_id": "u"}
    await client.try_enqueue(NewJob(**same))
    for ticket in [
        await client.try_enqueue(NewJob(**{**same, **other})),
        *await client.enqueue_many([NewJob(**{**same, **other})]),
    ]:
        assert type(ticket.error).__name__ == "DuplicatePayload"
        assert (ticket.status, ticket.created) == (None, False)


EQUAL = [
    ("1", "1.0"),
    ("1.50", "1.5"),
    ("1e2", "100"),
    ("1.0e2", "100.00"),
    ("-0", "0"),
    ("-0.0", "0"),
    ("0.0010", "1e-3"),
]
DIFFERENT = [
    ('"1.0"', '"1"'),
    ('", 1.0,"', '", 1,"'),
    ('"x\\" 1.0]"', '"x\\" 1]"'),
    ("1.05", "1.5"),
    ("100", "1"),
]
FORMS = ['{"n":%s}', '["a\\\\",%s]', "%s", '{"1.0":{"b":[%s,2]}}']


@pytest.mark.parametrize(("first", "second"), EQUAL + DIFFERENT)
async def test_equal_is_what_is_equal_as_jsonb(
    client: AsyncClient, connection: Connection, first: str, second: str
) -> None:
    for form in FORMS:
        assert await value(
            connection, "SELECT %s::jsonb = %s::jsonb", [form % first, form % second]
        ) == ((first, second) in EQUAL)
    sent, again = (
        [NewJob(plain, msgspec.Raw((form % number).encode()), form) for form in FORMS]
        for number in (first, second)
    )
    await client.enqueue_many(sent)
    await answered_as_known(client, again, same=(first, second) in EQUAL)


async def test_equal_is_equal_when_only_the_tombstone_is_left(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    await client.enqueue(plain, {"n": 1.0, "s": "1.0"}, job_id="j")
    await sql(
        connection,
        "UPDATE job_logs SET status = 'completed', processed_at = now() - interval '40 d'",
    )
    assert (await prune(connection, settings)).jobs == 1
    await answered_as_known(client, [NewJob(plain, {"n": 1, "s": "1.0"}, "j")], same=True)
    await answered_as_known(client, [NewJob(plain, {"n": 1, "s": "1"}, "j")], same=False)


async def answered_as_known(client: AsyncClient, jobs: list[NewJob[Any]], *, same: bool) -> None:
    """However they are sent."""
    alone = [await client.try_enqueue(job) for job in jobs]
    together = await asyncio.gather(*(client.try_enqueue(job) for job in jobs))
    for ticket in (*alone, *together, *await client.enqueue_many(jobs)):
        assert (ticket.created, ticket.error is None) == (False, same)


async def test_when_queue_priority_time_and_attempts_do_not_count_for_same(
    client: AsyncClient,
) -> None:
    await client.enqueue(plain, {"a": 1, "b": [1, 2]}, job_id="j")
    again = await client.enqueue(
        plain, {"b": [1, 2], "a": 1}, job_id="j", queue="x", priority=1, delay=60, max_attempts=2
    )
    assert not again.created


async def test_what_the_server_fills_in_does_not_count_for_same(
    client: AsyncClient, connection: Connection
) -> None:
    await client.enqueue(
        plain, {"name": "Ana"}, job_id="j", filled={"timestamp": "2026-01-01", "name": "ANA"}
    )
    again = await client.enqueue(
        plain, {"name": "Ana"}, job_id="j", filled={"timestamp": "2027-01-01"}
    )
    assert not again.created
    assert (await the_job(connection, "j"))["payload"] == {"name": "ANA", "timestamp": "2026-01-01"}


@pytest.mark.parametrize("status", ["processing", "failed", "completed", "dlq", "cancelled"])
async def test_a_duplicate_answers_with_the_present_status(
    client: AsyncClient, connection: Connection, status: str
) -> None:
    await a_job(connection, job_id="j", user_id="system", payload={"a": 1}, status=status)
    ticket = await client.enqueue(plain, {"a": 1}, job_id="j")
    assert (ticket.created, ticket.status) == (False, status)


@pytest.mark.parametrize("outcome", ["completed", "dlq", "cancelled"])
async def test_a_tombstone_answers_after_the_row_is_gone(
    client: AsyncClient, connection: Connection, settings: Settings, outcome: str
) -> None:
    old = timedelta(days=-40)
    ended = {"dead_at": old} if outcome == "dlq" else {}
    await a_job(
        connection,
        job_id="j",
        user_id="system",
        payload={"a": 1},
        status=outcome,
        created_at=old,
        processed_at=old,
        **ended,
    )
    await prune(connection, settings)
    assert await sql(connection, "SELECT 1 FROM job_logs") == []
    same = [
        await client.try_enqueue(NewJob(plain, {"a": 1}, "j")),
        *await client.enqueue_many([NewJob(plain, {"a": 1}, "j")]),
    ]
    for ticket in same:
        assert (ticket.created, ticket.status, ticket.error) == (False, outcome, None)
    other = [
        await client.try_enqueue(NewJob(plain, {"a": 2}, "j")),
        *await client.enqueue_many([NewJob(plain, {"a": 2}, "j")]),
    ]
    for ticket in other:
        assert type(ticket.error).__name__ == "DuplicatePayload"
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


async def test_a_limited_type_knows_its_tombstones_before_it_counts(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    old = timedelta(days=-40)
    await a_job(
        connection, job_id="old", job_type="test.limited", user_id="u", payload={"userId": "u"},
        status="completed",
        created_at=old, processed_at=old,
    )  # fmt: skip
    await prune(connection, settings)
    for number in range(2):
        await client.enqueue(limited, {"userId": "u"}, job_id=f"id-{number}")
    ticket = await client.try_enqueue(NewJob(limited, {"userId": "u"}, "old"))
    assert (ticket.error, ticket.status) == (None, Status.COMPLETED)


@pytest.mark.parametrize("bulk", [False, True], ids=["one", "many"])
async def test_an_enqueue_that_races_with_retention_finds_the_tombstone(
    client: AsyncClient, connection: Connection, settings: Settings, bulk: bool
) -> None:
    """Retention has deleted the row but not committed: the insert waits for it, succeeds, and must
    then be undone."""
    old = timedelta(days=-40)
    await a_job(
        connection,
        job_id="j",
        user_id="system",
        payload={"a": 1},
        status="completed",
        created_at=old,
        processed_at=old,
    )
    async with await AsyncConnection.connect(settings.conninfo) as retention:
        rows = await sql(retention, "SELECT id FROM job_logs")
        from pgqueue.database.worker_connection import load

        await retention.execute(load("bury_rows"), {"ids": [row["id"] for row in rows]})
        job = NewJob(plain, {"a": 1}, "j")
        late = asyncio.create_task(client.enqueue_many([job]) if bulk else client.try_enqueue(job))
        await until(
            lambda: _somebody_waits(retention) if not bulk else _waits_or_done(retention, late)
        )
        await retention.commit()
    answer: Any = await late
    ticket = answer[0] if bulk else answer
    assert (ticket.created, ticket.status) == (False, Status.COMPLETED)
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


async def _waits_or_done(own: Connection, late: asyncio.Task[Any]) -> bool:
    return late.done() or await _somebody_waits(own)


async def test_an_id_is_forgotten_after_its_time(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    old = timedelta(days=-40)
    await a_job(
        connection,
        job_id="j",
        user_id="system",
        payload={},
        status="completed",
        created_at=old,
        processed_at=old,
    )
    await prune(connection, settings)
    await sql(connection, "UPDATE job_tombstones SET ended_at = now() - interval '366 days'")
    await prune(connection, settings)
    assert (await client.enqueue(plain, {}, job_id="j")).created
