"""The plans of the hot statements, at 100,000 rows and with statistics that mislead."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from pgqueue.database.worker_connection import WorkerConnection, load
from pgqueue.settings import Settings
from pgqueue.worker.lanes import LAST_ID, START
from tests.support.factories import a_type, sql
from tests.support.scene import link

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
ROWS = 100_000

FILL = """
INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, max_attempts,
  status, attempt_count, run_after,
                      started_at, lease_until, processed_at)
SELECT 'j' || n, 'test.job', 'user-' || mod(n, %(users)s::int), %(payload)s, '\\x00', 'default', 5,
  %(status)s,
       (%(status)s <> 'enqueued')::int, now() + %(due)s + n * interval '1 ms',
       CASE WHEN %(status)s <> 'enqueued' THEN now() END,
       CASE WHEN %(status)s = 'processing' THEN now() + interval '1 h' END,
       CASE WHEN %(status)s = 'completed' THEN now() END
  FROM generate_series(%(first)s::int, %(last)s::int) n
"""


async def filled(
    connection: Connection,
    *,
    users: int = 1000,
    due: timedelta = timedelta(hours=-1),
    **counts: int,
) -> None:
    """So many rows of each status, of so many users, due from that moment on."""
    first = 1
    for status, count in counts.items():
        payload = Jsonb({"n": 1, "pad": "x" * 100})
        await sql(
            connection,
            FILL,
            {
                "status": status,
                "first": first,
                "last": first + count - 1,
                "payload": payload,
                "users": users,
                "due": due,
            },
        )
        first += count
    await sql(connection, "VACUUM ANALYZE job_logs")


async def explained(
    one: WorkerConnection, statement: str, values: dict[str, Any], *, generic: bool = False
) -> list[dict[str, Any]]:
    """The nodes of the plan as it was carried out; what it did is undone."""
    connection = await one.connect()
    async with connection.transaction(force_rollback=True):
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await connection.execute("SELECT set_config('plan_cache_mode', %s, true)", [mode])
        cursor = await connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {load(statement)}", values, prepare=True
        )
        (row,) = await cursor.fetchall()
    plan = row[0] if isinstance(row[0], list) else __import__("json").loads(row[0])
    return list(nodes(plan[0]["Plan"]))


async def explained_both(
    one: WorkerConnection, statement: str, values: dict[str, Any]
) -> list[list[dict[str, Any]]]:
    """With a plan for these values, and with the generic one."""
    return [await explained(one, statement, values, generic=generic) for generic in (False, True)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def on_job_logs(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        node
        for node in plan
        if node.get("Relation Name") == "job_logs" and "Scan" in node["Node Type"]
    ]


def only_index_scans(plan: list[dict[str, Any]], *names: str) -> None:
    scans = on_job_logs(plan)
    assert scans
    for node in scans:
        if node["Node Type"] == "Tid Scan":
            continue  # a row that is locked already
        assert node["Node Type"] in ("Index Scan", "Index Only Scan"), node["Node Type"]
        assert node["Index Name"] in names, node["Index Name"]


def visited(plan: list[dict[str, Any]]) -> int:
    """Rows of job_logs that the scans read, wanted or not."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in on_job_logs(plan)
    )


def a_claim(most: int = 100, place: Any = START) -> dict[str, Any]:
    return {
        "queues": ["default"],
        "free": [most],
        "lane_rooms": [1] * 10,
        "lane_priorities": list(range(10)),
        "lane_run_afters": [place[0]] * 10,
        "lane_ids": [place[1]] * 10,
        "lease": timedelta(seconds=30),
        "worker": "w-1",
        "aside": [],
    }


async def test_a_claim_reads_what_it_takes(connection: Connection, settings: Settings) -> None:
    await filled(connection, enqueued=ROWS)
    async with link(settings) as one:
        plans = await explained_both(one, "claim_jobs", a_claim())
    for plan in plans:
        only_index_scans(plan, "job_logs_claim", "job_logs_pkey")
        assert visited(plan) <= 100 * 2 + 10


async def test_a_claim_is_not_misled_when_most_live_rows_are_running(
    connection: Connection, settings: Settings
) -> None:
    """The statistics say that hardly any row is enqueued: a bitmap and a sort look cheap, and are
    thirty times as slow."""
    await filled(connection, processing=ROWS, enqueued=200)
    async with link(settings) as one:
        place = (
            await sql(
                connection, "SELECT run_after, id FROM job_logs WHERE job_id = %s", [f"j{ROWS}"]
            )
        )[0]
        plans = await explained_both(
            one, "claim_jobs", a_claim(100, (place["run_after"], place["id"]))
        )
    for plan in plans:
        only_index_scans(plan, "job_logs_claim", "job_logs_pkey")
        assert visited(plan) <= 100 * 2 + 10


async def test_an_idle_claim_does_not_walk_over_what_is_scheduled_for_later(
    connection: Connection, settings: Settings
) -> None:
    """The bound is now(), an index condition; as a filter it would read every scheduled job at
    every poll."""
    await filled(connection, due=timedelta(days=1), enqueued=ROWS)
    async with link(settings) as one:
        plan = await explained(one, "claim_jobs", a_claim())
    only_index_scans(plan, "job_logs_claim", "job_logs_pkey")
    assert visited(plan) <= 10


async def test_a_sweep_reads_its_slice_and_no_more(
    connection: Connection, settings: Settings
) -> None:
    await filled(connection, processing=ROWS)
    values = {
        "worker": "w-1",
        "detail": "{}",
        "queues": ["default"],
        "free": [100],
        "lane_queues": ["default"] * 10,
        "lane_priorities": list(range(10)),
        "lane_run_afters": [START[0]] * 10,
        "lane_ids": [START[1]] * 10,
        "lane_ends": [None] * 10,
        "lane_end_ids": [LAST_ID] * 10,
        "slice": 1000,
        "patient": False,
        "expected": None,
        "ahead": timedelta(),
        "aside": [],
        "types": ["test.job"],
        "rescue": True,
        "lease": timedelta(seconds=30),
    }
    async with link(settings) as one:
        plans = await explained_both(one, "sweep_jobs", values)
    for plan in plans:
        only_index_scans(plan, "job_logs_claim", "job_logs_pkey")
        assert visited(plan) <= 1000 + 100


@pytest.mark.parametrize("statement", ["ack_jobs", "extend_leases"])
async def test_acks_and_extensions_go_by_the_primary_key(
    connection: Connection, settings: Settings, statement: str
) -> None:
    await filled(connection, processing=ROWS)
    rows = await sql(connection, "SELECT id, lease FROM job_logs LIMIT 500")
    values = {"ids": [row["id"] for row in rows], "leases": [row["lease"] for row in rows]}
    async with link(settings) as one:
        plan = await explained(
            one,
            statement,
            values
            | {"lease": timedelta(seconds=30), "worker": "w-1", "receipts": [None] * 500}
            | {"ages": [0.0] * 500, "alive": True},
        )
    only_index_scans(plan, "job_logs_pkey")


async def test_acks_lock_rows_in_the_order_in_which_they_are_given(
    connection: Connection, settings: Settings
) -> None:
    await filled(connection, processing=ROWS)
    rows = await sql(connection, "SELECT id, lease FROM job_logs LIMIT 500")
    values = {
        "ids": [row["id"] for row in rows],
        "leases": [row["lease"] for row in rows],
        "worker": "w-1",
        "receipts": [],
    }
    async with link(settings) as one:
        plans = await explained_both(one, "ack_jobs", values)
    for plan in plans:
        assert [node["Node Type"] for node in plan] == [
            "ModifyTable",
            "Nested Loop",
            "Function Scan",
            "Index Scan",
        ]


async def test_the_limit_reads_as_many_rows_as_it_allows(
    connection: Connection, settings: Settings
) -> None:
    """Not as many as the user has: 100,000 jobs of one user in the window, and ten are read."""
    await a_type(connection, job_type="test.job", limit_count=10, limit_window="1 h")
    await filled(connection, users=1, completed=ROWS)
    async with connection.transaction(force_rollback=True):
        (row,) = await sql(
            connection,
            """EXPLAIN (ANALYZE, FORMAT JSON)
               SELECT j.created_at + interval '1 h' - clock_timestamp() FROM job_logs j
                WHERE j.user_id = 'user-0' AND j.job_type = 'test.job'
                  AND j.created_at > clock_timestamp() - interval '1 h'
                ORDER BY j.created_at DESC OFFSET 9 LIMIT 1""",
        )
    plan = list(nodes(row["QUERY PLAN"][0]["Plan"]))
    only_index_scans(plan, "job_logs_user")
    assert visited(plan) <= 10
    before = await _read(connection)
    (answer,) = await sql(
        connection, "SELECT * FROM pgqueue_try_enqueue('test.job', '{}', user_id => 'user-0')"
    )
    assert answer["refusal"] == "rate_limited"
    assert await _read(connection) - before <= 30, (
        "rows that the whole function read, by the server's own count"
    )


async def _read(connection: Connection) -> int:
    await sql(connection, "SELECT pg_stat_force_next_flush()")
    (row,) = await sql(
        connection,
        (
            "SELECT idx_tup_fetch + seq_tup_read AS n FROM pg_stat_user_tables WHERE relname = "
            "'job_logs'"
        ),
    )
    return int(row["n"])


async def test_a_page_of_the_dead_letter_queue_goes_by_its_index(
    connection: Connection, settings: Settings
) -> None:
    await filled(connection, completed=ROWS)
    await sql(
        connection,
        "UPDATE job_logs SET status = 'dlq', dead_at = now() WHERE job_id IN ('j1', 'j2', 'j3')",
    )
    await sql(connection, "ANALYZE job_logs")
    no_filter = dict.fromkeys(
        ["job_type", "user_id", "error", "since", "until", "job_ids", "cursor_dead_at", "cursor_id"]
    )
    async with link(settings) as one:
        plan = await explained(one, "list_dead_jobs", {**no_filter, "limit": 100, "damaged": False})
    only_index_scans(plan, "job_logs_dead")
    assert visited(plan) == 3


async def test_pruning_goes_by_ranges_of_the_id(connection: Connection, settings: Settings) -> None:
    await filled(connection, completed=ROWS)
    values = {
        "after": START[1],
        "keep_completed": timedelta(days=7),
        "keep_dlq": timedelta(days=30),
    }
    async with link(settings) as one:
        plan = await explained(one, "prune_jobs", {**values, "whole": False, "batch": 500})
    only_index_scans(plan, "job_logs_pkey")
    assert visited(plan) == 0
