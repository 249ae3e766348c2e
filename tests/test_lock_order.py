"""Statements that wait for one another never do so crosswise; and what they find when they have waited is what counts."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.database import load
from pgqueue.settings import Settings
from tests.factories import a_job, a_type, sql, value
from tests.races import another, waiting

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.mark.parametrize("what", ["complete", "retry", "no handler", "replay"])
async def test_rows_are_locked_in_the_order_of_their_ids(connection: Connection, settings: Settings, what: str) -> None:
    """Given in the opposite order, and lying so in the table: a statement that waits for the first row has locked no other."""
    status = "dlq" if what == "replay" else "processing"
    for number in (3, 2, 1):
        await a_job(connection, id=UUID(int=number), job_id=f"j{number}", status=status)
    ids = [UUID(int=number) for number in (3, 2, 1)]
    failed: dict[str, Any] = {"statuses": ["failed"] * 3, "delays": [timedelta()] * 3}
    failed |= {"errors": [None] * 3, "stack_traces": [None] * 3}
    statements = {"complete": ("ack_jobs", {}), "retry": ("fail_jobs", failed), "no handler": ("shelve_jobs", {})}
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await sql(other, "SELECT 1 FROM job_logs WHERE job_id = 'j1' FOR UPDATE")
        if what == "replay":
            running = late.execute("SELECT replay_jobs(%s)", [ids])
        else:
            name, more = statements[what]
            running = late.execute(load(name), {"ids": ids, "leases": [1, 1, 1]} | more)
        async with waiting(connection, late, running) as task:
            free = await sql(connection, "SELECT job_id FROM job_logs FOR UPDATE SKIP LOCKED")
            await other.rollback()
            await task
    assert {row["job_id"] for row in free} == {"j2", "j3"}


async def in_order_of_their_locks(connection: Connection, *users: str) -> list[tuple[str, int]]:
    locks = [(user, await value(connection, "SELECT limit_lock('test.job', %s)", [user])) for user in users]
    return sorted(locks, key=lambda one: one[1])


async def offer_all(connection: Connection, *items: dict[str, Any]) -> list[dict[str, Any]]:
    jobs = [{"job_type": "test.job", "payload": {}} | item for item in items]
    return await sql(connection, "SELECT * FROM offer_jobs(%s)", [psycopg.types.json.Jsonb(jobs)])


async def test_many_jobs_wait_for_the_lock_of_their_users(connection: Connection, settings: Settings) -> None:
    """Without it, the count would miss what another caller has not committed yet."""
    await a_type(connection, limit_count=1, limit_window="1 h")
    async with another(settings, autocommit=False) as other:
        await sql(other, "SELECT enqueue_job('test.job', '{}', user_id => 'u')")
        await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await offer_all(connection, {"user_id": "u"})
        await other.commit()
    assert [row["refusal"] for row in await offer_all(connection, {"user_id": "u"})] == ["rate_limited"]


async def test_the_locks_of_users_are_taken_in_order(connection: Connection, settings: Settings) -> None:
    await a_type(connection, limit_count=5, limit_window="1 h")
    (low, key), (high, _) = await in_order_of_their_locks(connection, "u1", "u2")
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await sql(other, "SELECT pg_advisory_xact_lock(%s)", [key])
        async with waiting(connection, late, offer_all(late, {"user_id": high}, {"user_id": low})) as offering:
            has = await sql(
                connection,
                "SELECT 1 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND granted",
                [late.info.backend_pid],
            )
            await other.rollback()
            await offering
    assert has == []


async def test_many_jobs_are_inserted_in_the_order_of_their_ids(connection: Connection, settings: Settings) -> None:
    """Two calls with the same ids in opposite orders wait for one another, but not crosswise."""
    await a_type(connection)
    async with another(settings, autocommit=False) as other, another(settings) as late:
        await offer_all(other, {"job_id": "a"})
        await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
        async with waiting(connection, late, offer_all(late, *({"job_id": id} for id in "cba"))) as offering:
            async with connection.transaction(force_rollback=True):
                assert all(row["created"] for row in await offer_all(connection, {"job_id": "b"}, {"job_id": "c"}))
            await other.commit()
            assert [row["created"] for row in await offering] == [True, True, False]


async def test_a_duplicate_that_waited_is_not_refused_by_the_limit(connection: Connection, settings: Settings) -> None:
    """When it looked for its id there was none; when it had the lock the first had taken the last place."""
    await a_type(connection, limit_count=1, limit_window="1 h")
    offer = "SELECT * FROM enqueue_job('test.job', '{}', job_id => 'j', user_id => 'u')"
    async with another(settings, autocommit=False) as first, another(settings) as second:
        await sql(first, offer)
        async with waiting(connection, second, sql(second, offer)) as late:
            await first.commit()
            assert [(row["status"], row["created"]) for row in await late] == [("enqueued", False)]


async def test_many_jobs_with_a_limit_are_not_counted_in_a_snapshot(connection: Connection, settings: Settings) -> None:
    await a_type(connection, limit_count=1, limit_window="1 h")
    async with another(settings, autocommit=False) as own:
        await own.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            await offer_all(own, {"user_id": "u"})
