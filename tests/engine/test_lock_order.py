"""Statements that wait for one another never do so crosswise; and what they find when they have
waited is what counts."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.database.migrations import migrate
from pgqueue.database.worker_connection import load
from pgqueue.settings import Settings
from tests.support.factories import a_job, a_type, sql, value
from tests.support.races import another, waiting
from tests.support.scene import link

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


IDS = [UUID(int=number) for number in (1, 2, 3)]
FAILED = {
    "statuses": ["failed"] * 3,
    "delays": [timedelta()] * 3,
    "errors": [None] * 3,
    "stack_traces": [None] * 3,
}


async def rows_in_the_opposite_order(connection: Connection, status: str = "processing") -> None:
    """As they lie in the table."""
    for id in reversed(IDS):
        await a_job(connection, id=id, job_id=f"j{id.int}", status=status)


@pytest.mark.parametrize("what", ["retry", "no handler", "intend", "replay"])
async def test_rows_are_locked_in_the_order_of_their_ids(
    connection: Connection, settings: Settings, what: str
) -> None:
    """However they are given: a statement that waits for the first row has locked no other."""
    await rows_in_the_opposite_order(connection, "dlq" if what == "replay" else "processing")
    statements = {"retry": "fail_jobs", "no handler": "shelve_jobs", "intend": "intend_effects"}
    given = {"ids": IDS[::-1], "leases": [1, 1, 1], "worker": "w-1", "certain": [True] * 3}
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await sql(other, "SELECT 1 FROM job_logs WHERE job_id = 'j1' FOR UPDATE")
        if what == "replay":
            running = late.execute("SELECT replay_jobs(%s)", [IDS[::-1]])
        else:
            running = late.execute(load(statements[what]), given | FAILED)
        async with waiting(connection, late, running) as task:
            free = await sql(connection, "SELECT job_id FROM job_logs FOR UPDATE SKIP LOCKED")
            await other.rollback()
            await task
    assert {row["job_id"] for row in free} == {"j2", "j3"}


async def test_acks_lock_rows_in_the_order_in_which_they_are_given(
    connection: Connection, settings: Settings
) -> None:
    """The worker gives them sorted, and its connection's plans are loops over what is given."""
    await rows_in_the_opposite_order(connection)
    async with another(settings, autocommit=False) as other, link(settings) as late:
        await sql(other, "SELECT 1 FROM job_logs WHERE job_id = 'j1' FOR UPDATE")
        ack = late.count(
            "ack_jobs", {"ids": IDS, "leases": [1, 1, 1], "worker": "w-1", "receipts": []}
        )
        async with waiting(connection, late, ack) as task:
            free = await sql(connection, "SELECT job_id FROM job_logs FOR UPDATE SKIP LOCKED")
            await other.rollback()
            assert await task == 3
    assert {row["job_id"] for row in free} == {"j2", "j3"}


async def in_order_of_their_locks(connection: Connection, *users: str) -> list[tuple[str, int]]:
    locks = [
        (user, await value(connection, "SELECT pgqueue_limit_lock('test.job', %s)", [user]))
        for user in users
    ]
    return sorted(locks, key=lambda one: one[1])


async def created(connection: Connection, function: str, *items: dict[str, Any]) -> list[bool]:
    """Which of these jobs were created, in order."""
    jobs = psycopg.types.json.Jsonb(
        [{"job_type": "test.job", "payload": {}} | item for item in items]
    )
    rows = await sql(connection, f"SELECT * FROM {function}(%s)", [jobs])
    told = {row["ord"] for row in rows}
    return [number not in told for number in range(1, len(items) + 1)]


@pytest.mark.parametrize("function", ["pgqueue_enqueue_many", "pgqueue_enqueue_group"])
async def test_many_jobs_wait_for_the_lock_of_their_users(
    connection: Connection, settings: Settings, function: str
) -> None:
    """Without it, the count would miss what another caller has not committed yet."""
    await a_type(connection, limit_count=1, limit_window="1 h")
    async with another(settings, autocommit=False) as other:
        await sql(other, "SELECT enqueue_job('test.job', '{}', user_id => 'u')")
        await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await created(connection, function, {"user_id": "u", "job_id": "j"})
        await other.commit()
    assert await created(connection, function, {"user_id": "u", "job_id": "j"}) == [False]


async def test_a_group_with_a_limit_knows_ids_that_are_taken(connection: Connection) -> None:
    await a_type(connection, limit_count=5, limit_window="1 h")
    item = {"job_id": "j", "user_id": "u"}
    assert await created(connection, "pgqueue_enqueue_group", item) == [True]
    assert await created(
        connection, "pgqueue_enqueue_group", {"job_id": "other", "user_id": "u"}, item
    ) == [
        True,
        False,
    ]
    old = timedelta(days=-40)
    row = await a_job(
        connection,
        job_id="buried",
        user_id="u",
        status="completed",
        created_at=old,
        processed_at=old,
    )
    await sql(connection, load("bury_rows").replace("%(ids)s", "%s"), [[row["id"]]])
    assert await created(
        connection, "pgqueue_enqueue_group", {"job_id": "buried", "user_id": "u"}
    ) == [False]
    assert await value(connection, "SELECT count(*) FROM job_logs") == 2


@pytest.mark.parametrize("function", ["pgqueue_enqueue_many", "pgqueue_enqueue_group"])
async def test_the_locks_of_users_are_taken_in_order(
    connection: Connection, settings: Settings, function: str
) -> None:
    """All of them before the first job, whatever the order of the jobs: two calls for the same
    users never wait crosswise."""
    await a_type(connection, limit_count=5, limit_window="1 h")
    await sql(connection, "ALTER FUNCTION pgqueue_enqueue_group SET lock_timeout = '20s'")
    (low, key), (high, _) = await in_order_of_their_locks(connection, "u1", "u2")
    items = {"user_id": high, "job_id": "a"}, {"user_id": low, "job_id": "b"}
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await sql(other, "SELECT pg_advisory_xact_lock(%s)", [key])
        async with waiting(connection, late, created(late, function, *items)) as offering:
            has = await sql(
                connection,
                "SELECT 1 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND granted",
                [late.info.backend_pid],
            )
            await other.rollback()
            assert await offering == [True, True]
    assert has == []


@pytest.mark.parametrize("user_from", [None, "userId"], ids=["unlimited", "named users"])
async def test_many_jobs_are_inserted_in_the_order_of_their_ids(
    connection: Connection, settings: Settings, user_from: str | None
) -> None:
    """Two calls with the same ids in opposite orders wait for one another, but not crosswise. (A
    join may turn the order round, so that both are tried.)"""
    function = "pgqueue_enqueue_many"
    await a_type(connection, user_from=user_from)
    await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
    for given in ("cba", "abc"):
        async with another(settings, autocommit=False) as other, another(settings) as late:
            await created(other, function, {"job_id": "a"})
            async with waiting(
                connection, late, created(late, function, *({"job_id": id} for id in given))
            ) as offering:
                async with connection.transaction(force_rollback=True):
                    assert await created(
                        connection, function, {"job_id": "b"}, {"job_id": "c"}
                    ) == [True, True]
                await other.commit()
                assert await offering == [id != "a" for id in given]
        await sql(connection, "DELETE FROM job_logs")


async def test_jobs_of_a_group_are_inserted_in_the_order_of_their_ids(
    connection: Connection, settings: Settings
) -> None:
    """Also where a limit has each of them looked at by itself."""
    await a_type(connection, limit_count=5, limit_window="1 h")
    await sql(connection, "ALTER FUNCTION pgqueue_enqueue_group SET lock_timeout = '20s'")
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await created(other, "pgqueue_enqueue_many", {"job_id": "a", "user_id": "u1"})
        offer = created(
            late,
            "pgqueue_enqueue_group",
            {"job_id": "b", "user_id": "u2"},
            {"job_id": "a", "user_id": "u2"},
        )
        async with waiting(connection, late, offer) as offering:
            await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
            async with connection.transaction(force_rollback=True):
                await a_job(connection, job_id="b")
            await other.rollback()
            assert await offering == [True, True]


@pytest.mark.parametrize("user_from", [None, "userId"], ids=["unlimited", "named users"])
async def test_many_jobs_that_race_with_retention_find_the_tombstone(
    connection: Connection, settings: Settings, user_from: str | None
) -> None:
    """The row has been deleted, but not yet for everybody: the insert waits for that, succeeds, and
    is undone."""
    await a_type(connection, user_from=user_from)
    old = timedelta(days=-40)
    row = await a_job(
        connection,
        job_id="j",
        user_id="system",
        status="completed",
        created_at=old,
        processed_at=old,
    )
    async with another(settings, autocommit=False) as retention, another(settings) as late:
        await retention.execute(load("bury_rows"), {"ids": [row["id"]]})
        async with waiting(
            connection, late, created(late, "pgqueue_enqueue_many", {"job_id": "j"})
        ) as offering:
            await retention.commit()
            assert await offering == [False]
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


async def test_a_duplicate_that_waited_is_not_refused_by_the_limit(
    connection: Connection, settings: Settings
) -> None:
    """When it looked for its id there was none; when it had the lock the first had taken the last
    place."""
    await a_type(connection, limit_count=1, limit_window="1 h")
    offer = "SELECT * FROM enqueue_job('test.job', '{}', job_id => 'j', user_id => 'u')"
    async with another(settings, autocommit=False) as first, another(settings) as second:
        await sql(first, offer)
        async with waiting(connection, second, sql(second, offer)) as late:
            await first.commit()
            assert [(row["status"], row["created"]) for row in await late] == [("enqueued", False)]


async def test_many_jobs_with_a_limit_are_not_counted_in_a_snapshot(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, limit_count=1, limit_window="1 h")
    async with another(settings, autocommit=False) as own:
        await own.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            await created(own, "pgqueue_enqueue_many", {"user_id": "u"})


@pytest.mark.parametrize("function", ["pgqueue_enqueue_many", "pgqueue_enqueue_group"])
async def test_the_order_of_ids_is_the_same_whatever_the_database_s_collation(
    empty_database_url: str, function: str
) -> None:
    """In most languages "a" comes before "B"; two orders in one database would meet crosswise."""
    name = f"{psycopg.conninfo.conninfo_to_dict(empty_database_url)['dbname']}_icu"
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as server:
        try:
            await server.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE "
                "'en-US' LOCALE 'C' ENCODING 'UTF8'"
            )
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("this build of Postgres has no ICU")
        url = psycopg.conninfo.make_conninfo(empty_database_url, dbname=name)
        try:
            await migrate(url)
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as own:
                await a_type(own)
                assert await value(own, "SELECT 'a' < 'B'")
                await created(own, function, {"job_id": "a"}, {"job_id": "B"}, {"job_id": "c"})
                rows = await sql(own, "SELECT job_id FROM job_logs ORDER BY ctid")
        finally:
            await server.execute(f"DROP DATABASE {name}")
    assert [row["job_id"] for row in rows] == ["B", "a", "c"]
