"""What operators may write by hand: refused by a CHECK that names the way, or it costs that one
job; all others go on."""

import itertools
import json
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from pgqueue_service.api.schemas.responses import DeadJob, JobState
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, task
from pgqueue.cli.output import as_json, job_document
from pgqueue.database.retention import prune
from pgqueue.settings import Settings
from tests.support.factories import a_job, sql, the_job, value
from tests.support.scene import link, published, registered, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
OVER = timedelta(seconds=-1)


@task("test.job", depends_on="server")
async def quick(job: Job[Any]) -> None:
    """Done at once."""


TIMES = (
    "'infinity'",
    "'-infinity'",
    "'0044-03-15 12:00:00+00 BC'",
    "'294276-12-31'",
    "now() + interval '1 year'",
    "NULL",
)
TEXTS = ("''", "repeat('x', 100000)", r"E'line\nbreak'", "NULL")
JSONS = (
    "'{}'",
    "'[]'",
    "'null'",
    "'7'",
    "'\"x\"'",
    "'[null, 7, \"x\", []]'",
    "(SELECT jsonb_agg(n) FROM generate_series(1, 100) n)",
    '\'[{"event": "no handler", "at": "never", "times": "many"}]\'',
    '\'[{"event": "no handler", "at": "infinity", "times": 1e300}]\'',
    "'{\"n\": 1e5000}'",
    "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
    "NULL",
)
SPANS = ("'300000 years'", "'-1 day'", "'0 s'", "NULL")
NUMBERS = ("-1", "0", "1", "999", "2147483647", "NULL")

JOB = {
    **dict.fromkeys(
        (
            "created_at",
            "run_after",
            "started_at",
            "lease_until",
            "processed_at",
            "dead_at",
            "intent_at",
        ),
        TIMES,
    ),
    **dict.fromkeys(
        ("job_id", "job_type", "user_id", "queue", "status", "locked_by", "error", "stack_trace"),
        TEXTS,
    ),
    **dict.fromkeys(("progress_note", "receipt"), TEXTS),
    **dict.fromkeys(("payload", "history"), JSONS),
    **dict.fromkeys(("priority", "max_attempts", "attempt_count"), NUMBERS),
    "lease": (*NUMBERS, "9223372036854775807"),
    "progress": ("-1", "2", "'NaN'", "'infinity'", "0.5", "NULL"),
    "id": ("'ffffffff-ffff-ffff-ffff-ffffffffffff'",),
    "payload_digest": ("''", "NULL"),
}

STATES: dict[str, dict[str, Any]] = {
    "enqueued": {},
    "failed": {},
    "processing": {"lease_until": OVER, "locked_by": "w-dead"},
    "dlq": {},
}


def cases(columns: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(column, odd) for column, odds in columns.items() for odd in odds]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("column", JOB)
async def test_a_row_that_an_operator_spoiled_harms_itself_only(
    connection: Connection, settings: Settings, column: str, tmp_path: Any
) -> None:
    await published(connection, settings, quick)
    for number, (odd, status) in enumerate(itertools.product(JOB[column], STATES)):
        await a_job(connection, job_id=f"odd-{number}", status=status, **STATES[status])
        await spoil(
            connection, f"UPDATE job_logs SET {column} = {odd} WHERE job_id = 'odd-{number}'"
        )
    await everything_goes_on(connection, settings, tmp_path)


async def spoil(connection: Connection, update: str) -> None:
    """Unless it is refused: by a rule with a name, or because the value is none of its type."""
    try:
        await connection.execute(update.encode())
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if not (error.diag.constraint_name or error.sqlstate in NO_SUCH_VALUE):
            raise


NO_SUCH_VALUE = ("22003", "22P02", "22007", "22008", "23502")


async def everything_goes_on(connection: Connection, settings: Settings, folder: Any) -> None:
    async with AsyncClient.open(settings) as client:
        for number in range(6):
            await client.enqueue(quick, {}, job_id=f"good-{number}")
        await a_job(
            connection,
            job_id="good-rescued",
            status="processing",
            lease_until=OVER,
            locked_by="w-dead",
        )
        await a_job(
            connection,
            job_id="good-last",
            status="processing",
            attempt_count=5,
            lease_until=OVER,
            locked_by="w-dead",
        )
        async with working(settings, quick) as worker:
            query = (
                "SELECT count(*) = 8 FROM job_logs WHERE job_id LIKE 'good%' AND processed_at IS "
                "NOT NULL"
            )
            await until(lambda: value(connection, query), 40, "the good jobs are done")
            turns = worker.sweeper.turns
            await until(lambda: worker.sweeper.turns > turns + 1, 20, "sweeps go on")
            assert worker.healthy
        assert (await the_job(connection, "good-last"))["status"] == "dlq"
        dead = [view.job_id for view in await client.dead_letters()]
        assert "good-last" in dead
        for view in await client.dead_letters():
            json.dumps(view.payload)
            assert as_json(job_document(view, payload=False))
            assert msgspec.json.encode(DeadJob.of(view))
            assert msgspec.json.encode(JobState.of(view))
        for row in await sql(connection, "SELECT job_id FROM job_logs WHERE job_id <> ''"):
            await client.get(row["job_id"])
        await client.replay("good-last")
    await sql(
        connection,
        "UPDATE job_logs SET processed_at = now() - interval '60 d' WHERE processed_at IS NOT NULL",
    )
    await sql(connection, "UPDATE job_logs SET created_at = now() - interval '61 d'")
    old = await value(connection, "SELECT count(*) FROM job_logs WHERE processed_at IS NOT NULL")
    assert (await prune(connection, settings, archive=folder / "archive")).jobs == old


OTHERS = {
    "job_types": {
        **dict.fromkeys(("limit_window", "backoff_base", "backoff_cap", "timeout"), SPANS),
        **dict.fromkeys(("limit_count", "max_attempts"), NUMBERS),
        **dict.fromkeys(("queue", "job_type", "user_from", "depends_on"), TEXTS),
        "published_at": TIMES,
    },
    "job_queues": {"queue": TEXTS, "paused": ("true", "NULL"), "changed_at": TIMES},
    "job_workers": {
        **dict.fromkeys(("queues", "types", "detail"), JSONS),
        **dict.fromkeys(("id", "kind", "host", "release"), TEXTS),
        **dict.fromkeys(("seen_at", "started_at"), TIMES),
        "lease": SPANS,
        "asleep": ("true", "NULL"),
        "pid": NUMBERS,
    },
    "job_dependencies": {
        "failures": (*JSONS, '\'{"a": "never", "b": null, "c": {}}\''),
        **dict.fromkeys(("opened_at", "probe_at", "changed_at", "closed_at"), TIMES),
        "probe_pause": SPANS,
        "probe_lease": (*NUMBERS, "9223372036854775807"),
        "reason": TEXTS,
        "probe_worker": TEXTS,
    },
    "job_tombstones": {
        "outcome": TEXTS,
        "ended_at": TIMES,
        "digest": ("''", "NULL"),
        "id_hash": ("''", "NULL"),
    },
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in OTHERS for column in OTHERS[table]]
)
async def test_what_an_operator_spoils_beside_the_jobs_stops_no_work(
    connection: Connection, settings: Settings, table: str, column: str, tmp_path: Any
) -> None:
    await published(connection, settings, quick)
    for number, odd in enumerate(OTHERS[table][column]):
        await scenery(connection, settings, number)
        await spoil(
            connection, f"UPDATE {table} SET {column} = {odd} WHERE {MINE[table].format(number)}"
        )
    await everything_goes_on(connection, settings, tmp_path)
    async with AsyncClient.open(settings) as client:
        for report in ("workers", "queues", "health", "dependencies", "job_stats"):
            await client.report(report)


MINE = {
    "job_types": "job_type = 'odd.{}'",
    "job_queues": "queue = 'odd-{}'",
    "job_workers": "id = 'odd-{}'",
    "job_dependencies": "dependency IN ('odd-{}', 'server')",
    "job_tombstones": "id_hash = 'odd-{}'",
}


async def scenery(connection: Connection, settings: Settings, number: int) -> None:
    await sql(
        connection,
        "INSERT INTO job_types (job_type, limit_count, limit_window) VALUES (%s, 1, '1 h')",
        [f"odd.{number}"],
    )
    await sql(connection, "SELECT pause_queue(%s, true)", [f"odd-{number}"])
    await sql(
        connection,
        "INSERT INTO job_tombstones VALUES (%s, '', 'completed', now())",
        [f"odd-{number}".encode()],
    )
    both = (
        "INSERT INTO job_dependencies (dependency) VALUES (%s), ('server') ON CONFLICT DO NOTHING"
    )
    await sql(connection, both, [f"odd-{number}"])
    async with link(settings) as one:
        await registered(one, f"odd-{number}")
