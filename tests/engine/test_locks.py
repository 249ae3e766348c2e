"""Statements that meet on the same rows: they pass by where they can, and look again where they had
to wait."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.database.retention import LOCK
from pgqueue.database.worker_connection import WorkerConnection, load
from pgqueue.settings import Settings
from pgqueue.worker.pruner import _turn
from tests.engine.test_leases import VERBS
from tests.support.factories import a_job, sql, the_job, value
from tests.support.races import another, impatient, slow_clock, waiting
from tests.support.scene import claim, link, registered, sweep

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
OVER = timedelta(seconds=-1)
OLD = timedelta(days=-40)


# Passing by


async def claimed(one: WorkerConnection) -> set[str]:
    return {row[3] for row in await claim(one)}


async def rescued(one: WorkerConnection) -> set[str]:
    return set((await sweep(one)).get("rescue", []))


async def released(one: WorkerConnection) -> set[str]:
    rows = await one.run(
        "release_orphans", {"queues": ["default"], "worker": "w-1", "ids": [], "leases": []}
    )
    return {row[0] for row in rows}


async def buried(one: WorkerConnection) -> set[str]:
    return {row[0] for row in await one.run("bury_forgotten", {"batch": 10})}


async def pruned(one: WorkerConnection) -> set[str]:
    values = {
        "after": UUID(int=0),
        "whole": True,
        "keep_completed": timedelta(days=7),
        "keep_dlq": timedelta(days=7),
        "batch": 10,
    }
    cursor = await (await one.connect()).execute(load("prune_jobs"), values)
    names = [column.name for column in cursor.description or []]
    return {row[names.index("job_id")] for row in await cursor.fetchall()}


PASSING: dict[str, tuple[Callable[[WorkerConnection], Awaitable[set[str]]], dict[str, Any]]] = {
    "claim": (claimed, {}),
    "sweep": (rescued, {"status": "processing", "lease_until": OVER}),
    "release": (released, {"status": "processing"}),
    "bury": (buried, {"status": "processing", "started_at": timedelta(hours=-25)}),
    "prune": (pruned, {"status": "completed", "created_at": OLD, "processed_at": OLD}),
}


@pytest.mark.parametrize("what", PASSING)
async def test_nobody_waits_for_a_job_that_somebody_has_locked(
    connection: Connection, settings: Settings, what: str
) -> None:
    act, columns = PASSING[what]
    for name in ("locked", "free"):
        await a_job(connection, job_id=name, **columns)
    async with another(settings, autocommit=False) as other, link(settings) as one:
        await sql(other, "SELECT 1 FROM job_logs WHERE job_id = 'locked' FOR UPDATE")
        assert await act(await impatient(one)) == {"free"}


async def test_an_extension_waits_for_nobody(connection: Connection, settings: Settings) -> None:
    """Otherwise one slow transaction on one job would cost all the others their leases."""
    await a_job(connection, job_id="locked")
    await a_job(connection, job_id="free")
    async with link(settings) as one, another(settings, autocommit=False) as other:
        rows = {row[3]: row for row in await claim(one)}
        held = {
            "ids": [row[0] for row in rows.values()],
            "leases": [row[1] for row in rows.values()],
        }
        await sql(other, "SELECT 1 FROM job_logs WHERE job_id = 'locked' FOR UPDATE")
        answer = await (await impatient(one)).run(
            "extend_leases",
            held | {"lease": timedelta(minutes=9), "worker": "w-1", "alive": True, "ages": [0, 0]},
        )
    assert [(row[0], row[-1]) for row in answer] == [(rows["free"][0], "extended")]


async def test_forgetting_ids_waits_for_nobody(connection: Connection, settings: Settings) -> None:
    for name in ("locked", "free"):
        await sql(
            connection,
            "INSERT INTO job_tombstones VALUES (%s, '', 'completed', now() - interval '400 d')",
            [name.encode()],
        )
    async with another(settings, autocommit=False) as other, link(settings) as one:
        await sql(other, "SELECT 1 FROM job_tombstones WHERE id_hash = 'locked' FOR UPDATE")
        await (await impatient(one)).run(
            "prune_tombstones", {"keep_ids": timedelta(days=365), "batch": 10}
        )
    assert await sql(connection, "SELECT id_hash FROM job_tombstones") == [{"id_hash": b"locked"}]


async def test_two_rings_at_once_wake_different_workers(
    connection: Connection, settings: Settings
) -> None:
    async with link(settings) as one, another(settings, autocommit=False) as other:
        for name in ("w-1", "w-2"):
            await registered(one, name)
            await one.run("sleep_worker", {"worker": name})
        assert await value(other, "SELECT ring_doorbell(ARRAY['default'], 1)") == 1
        assert [
            row[0]
            for row in await (await impatient(one)).run(
                "ring_doorbell", {"queues": ["default"], "jobs": 2}
            )
        ] == [1]


async def test_one_process_at_a_time_keeps_house(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, status="completed", created_at=OLD, processed_at=OLD, id=UUID(int=1))
    async with another(settings, autocommit=False) as other:
        await sql(other, "SELECT pg_advisory_xact_lock(%s)", [LOCK])
        await _turn(connection, settings)
        assert await value(connection, "SELECT count(*) FROM job_logs") == 1
        await other.rollback()
    await _turn(connection, settings)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


# Looking again


@pytest.mark.parametrize(
    "verb",
    ["complete", "retry", "dlq", "snooze", "no handler", "progress", "intend", "own transaction"],
)
async def test_an_outcome_that_waited_for_a_cancel_finds_its_lease_gone(
    connection: Connection, settings: Settings, verb: str
) -> None:
    """The cancel has not committed when the outcome comes: to its snapshot the lease still
    holds."""
    await a_job(connection, job_id="j")
    async with link(settings) as one, another(settings, autocommit=False) as other:
        (row,) = await claim(one)
        await sql(other, "SELECT cancel_job('j')")
        async with waiting(connection, one, VERBS[verb](one, row)) as late:
            await other.commit()
            cancelled = await the_job(connection, "j")
            assert list(await late) == []
    assert await the_job(connection, "j") == cancelled


async def test_two_replays_at_once_are_one(connection: Connection, settings: Settings) -> None:
    await a_job(connection, job_id="j", status="dlq")
    async with another(settings, autocommit=False) as first, another(settings) as second:
        await sql(first, "SELECT replay_job('j')")
        async with waiting(
            connection, second, sql(second, "SELECT changed, status FROM replay_job('j')")
        ) as late:
            await first.commit()
            assert await late == [{"changed": False, "status": "enqueued"}]
    assert len((await the_job(connection, "j"))["history"]) == 1


async def test_what_retention_has_chosen_cannot_be_replayed_meanwhile(
    connection: Connection, settings: Settings
) -> None:
    """It would be deleted as a waiting job, and lost."""
    await a_job(connection, job_id="j", status="dlq", created_at=OLD, processed_at=OLD, dead_at=OLD)
    async with link(settings) as one, (await one.connect()).transaction():
        assert await pruned(one) == {"j"}
        await sql(connection, "SELECT set_config('lock_timeout', '100ms', false)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await sql(connection, "SELECT replay_job('j')")


EXPIRED = {"status": "processing", "lease_until": OVER}
STRAGGLER = {"run_after": timedelta(minutes=-5)}

MEANWHILE: dict[str, tuple[dict[str, Any], str]] = {
    "extended": (EXPIRED, "UPDATE job_logs SET lease_until = clock_timestamp() + interval '1 min'"),
    "rescued": (
        EXPIRED,
        "UPDATE job_logs SET lease = lease + 1, lease_until = clock_timestamp() + interval '1 min'",
    ),
    "completed": (
        EXPIRED,
        "UPDATE job_logs SET status = 'completed', lease_until = NULL, processed_at = now()",
    ),
    "cancelled": (EXPIRED, "SELECT cancel_job('j')"),
    "claimed": (
        STRAGGLER,
        (
            "UPDATE job_logs SET status = 'processing', lease = 1, attempt_count = 1, "
            "lease_until = now() + '1 h'"
        ),
    ),
    "given up": (STRAGGLER, "SELECT cancel_job('j')"),
    "put off": (STRAGGLER, "UPDATE job_logs SET run_after = now() + interval '1 h'"),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
async def test_a_sweep_takes_nothing_that_changed_after_it_was_read(
    connection: Connection, settings: Settings, meanwhile: str
) -> None:
    columns, change = MEANWHILE[meanwhile]
    await a_job(connection, job_id="j", **columns)
    async with (
        link(settings) as one,
        slow_clock(connection, settings, one) as gate,
        waiting(connection, one, sweep(one)) as sweeping,
    ):
        await connection.execute(change.encode())
        changed = await the_job(connection, "j")
        await gate.rollback()
        assert await sweeping == {}
    assert await the_job(connection, "j") == changed
