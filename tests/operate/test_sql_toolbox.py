"""sql/monitoring and sql/replay: every file runs as it is, says what its answer means, and reads no
more than it must."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgqueue import AsyncClient
from pgqueue.database.worker_connection import load
from tests.conftest import Server
from tests.support.factories import a_job, a_type, sql, the_job, value
from tests.support.logins import url_of
from tests.support.scene import until

pytestmark = pytest.mark.postgres(15, 18)

SIGN_IN = "user.signin.notification"


def names(folder: str) -> list[str]:
    return sorted(
        file.name[:-4]
        for file in (files("pgqueue.sql") / folder).iterdir()
        if file.name.endswith(".sql")
    )


MONITORING, REPLAY = names("monitoring"), names("replay")

FOR_THE_OWNER = {"cancel_waiting"}
"""It locks the rows that it cancels, which no operator may."""


async def psql(server: Server, url: str, folder: str, name: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(
            str(server.binaries / "psql"),
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            str(files("pgqueue.sql") / folder / f"{name}.sql"),
            url if name in FOR_THE_OWNER else url_of("queue_api", url),
        ),
        env={**os.environ, "PAGER": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def report(connection: AsyncConnection[Any], name: str) -> list[dict[str, Any]]:
    return await sql(connection, load(name, "monitoring"))


async def answers(
    connection: AsyncConnection[Any], name: str, **changed: str
) -> list[list[dict[str, Any]]]:
    """Runs a replay file with other words than those that stand in it, and commits. The rows of
    each of its SELECTs."""
    text = load(name, "replay").replace("ROLLBACK;", "COMMIT;")
    for key, content in changed.items():
        text, count = re.subn(rf"(SET LOCAL toolbox.{key} = )'[^']*'", rf"\1'{content}'", text)
        assert count == 1
    found = []
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(text.encode())
        while True:
            if cursor.description:
                found.append(await cursor.fetchall())
            if not cursor.nextset():
                return found


@pytest.mark.parametrize("name", MONITORING)
async def test_a_monitoring_query_runs_in_psql_and_by_the_client(
    pg_server: Server, database_url: str, name: str
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await a_type(connection, limit_count=10, limit_window="1 h")
        for status in ("enqueued", "processing", "completed", "failed", "dlq", "cancelled"):
            await a_job(connection, status=status)
        await sql(connection, "ANALYZE job_logs")
    await psql(pg_server, database_url, "monitoring", name)
    async with AsyncClient.open(url_of("queue_api", database_url)) as client:
        for _ in range(7):  # often enough for psycopg to prepare it
            await client.report(name)


@pytest.mark.parametrize("name", MONITORING)
async def test_a_monitoring_query_runs_on_an_empty_table(
    pg_server: Server, database_url: str, name: str
) -> None:
    await psql(pg_server, database_url, "monitoring", name)


@pytest.mark.parametrize("name", REPLAY)
async def test_a_replay_file_is_a_rehearsal_until_somebody_writes_commit(
    pg_server: Server, connection: AsyncConnection[Any], database_url: str, name: str
) -> None:
    await a_type(connection, job_type=SIGN_IN)
    await a_job(
        connection,
        job_id="signin-u1-1",
        job_type=SIGN_IN,
        status="dlq",
        error="connection refused: invalid address",
    )
    await a_job(connection, job_id="waits", job_type=SIGN_IN)
    before = await sql(connection, "SELECT * FROM job_logs ORDER BY id")
    said = await psql(pg_server, database_url, "replay", name)
    assert said.strip().splitlines()[0] == "BEGIN"
    assert said.strip().splitlines()[-1] == "ROLLBACK"
    assert re.search(r"(replayed|cancelled|discarded)\s*\n-+\n\s+1\n|Job enqueued again", said), (
        said
    )
    await connection.execute(load(name, "replay").encode())
    assert await sql(connection, "SELECT * FROM job_logs ORDER BY id") == before


@pytest.mark.parametrize(
    ("folder", "name"),
    [("monitoring", name) for name in MONITORING] + [("replay", name) for name in REPLAY],
)
def test_a_file_says_what_its_answer_means(folder: str, name: str) -> None:
    head = re.match(r"(?:--.*\n)+", load(name, folder))
    assert head is not None
    assert len(head[0].split()) >= 40
    assert "\\set" not in load(name, folder)
    assert load(name, folder).endswith(";\n")  # for psql's \i, which waits for it


class TestReplay:
    async def test_one(self, connection: AsyncConnection[Any]) -> None:
        await a_job(connection, job_id="it's", status="dlq", error="boom")
        preview, answer = await answers(connection, "replay_one", job_id="it''s")
        assert preview[0]["error"] == "boom"
        assert answer[0]["changed"]
        assert (await the_job(connection, "it's"))["status"] == "enqueued"

    async def test_by_error_spreads_them_longest_dead_first(
        self, connection: AsyncConnection[Any]
    ) -> None:
        for number in range(3):
            await a_job(
                connection,
                job_id=f"t{number}",
                status="dlq",
                error="Connection TIMED out",
                dead_at=timedelta(hours=-number),
            )
        await a_job(connection, job_id="other", status="dlq", error="bad address")
        preview, answer = await answers(connection, "replay_by_error", error="timed OUT")
        assert preview[0]["jobs"] == answer[0]["replayed"] == 3
        jobs = await sql(
            connection, "SELECT job_id FROM job_logs WHERE status = 'enqueued' ORDER BY run_after"
        )
        assert [row["job_id"] for row in jobs] == ["t2", "t1", "t0"]
        assert (await the_job(connection, "other"))["status"] == "dlq"

    async def test_by_type_and_by_time(self, connection: AsyncConnection[Any]) -> None:
        await a_job(connection, job_id="a", job_type="one", status="dlq")
        await a_job(
            connection, job_id="b", job_type="two", status="dlq", dead_at=timedelta(hours=-5)
        )
        assert (await answers(connection, "replay_by_type", job_type="two"))[1][0]["replayed"] == 1
        assert (await answers(connection, "replay_recent", ago="2 hours"))[1][0]["replayed"] == 1
        assert (
            await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'enqueued'") == 2
        )

    async def test_cancel_waiting_leaves_what_runs(self, connection: AsyncConnection[Any]) -> None:
        for status in ("enqueued", "failed", "processing"):
            await a_job(connection, job_id=status, job_type="wrong", status=status)
        await a_job(connection, job_id="right")
        preview, answer = await answers(connection, "cancel_waiting", job_type="wrong")
        assert sum(row["jobs"] for row in preview) == answer[0]["cancelled"] == 2
        left = await sql(
            connection, "SELECT job_id FROM job_logs WHERE status <> 'cancelled' ORDER BY 1"
        )
        assert [row["job_id"] for row in left] == ["processing", "right"]

    async def test_discarded_jobs_become_cancelled(self, connection: AsyncConnection[Any]) -> None:
        await a_job(connection, job_id="bad", status="dlq", error="Invalid address: x")
        _, answer = await answers(connection, "discard_dead")
        assert answer[0]["discarded"] == 1
        assert (await the_job(connection, "bad"))["status"] == "cancelled"


class TestMonitoring:
    async def test_health_counts_what_the_alerts_are_about(
        self, connection: AsyncConnection[Any]
    ) -> None:
        (calm,) = await report(connection, "health")
        assert calm == {
            "dead": 0,
            "failed_share": None,
            "p99_s": None,
            "depth": 0,
            "unserved": 0,
            "disagreements": 0,
        }
        for _ in range(3):
            await a_job(
                connection,
                status="completed",
                run_after=timedelta(seconds=-20),
                processed_at=timedelta(seconds=-5),
            )
        await a_job(connection, status="dlq")
        await a_job(connection, status="failed", run_after=timedelta(minutes=1))
        await a_job(
            connection,
            status="failed",
            started_at=timedelta(hours=-2),
            run_after=timedelta(minutes=1),
        )
        await a_job(connection)
        await a_job(connection, run_after=timedelta(hours=1))
        await a_job(connection, queue="held")
        await sql(connection, "SELECT pause_queue('held', true)")
        (row,) = await report(connection, "health")
        assert (row["dead"], row["depth"], row["unserved"]) == (1, 2, 1)
        assert float(row["failed_share"]) == pytest.approx(2 / 5)
        assert float(row["p99_s"]) == pytest.approx(15, abs=0.5)

    async def test_health_knows_who_is_alive(self, connection: AsyncConnection[Any]) -> None:
        await a_job(connection)
        for number, (seconds, digest) in enumerate([(0, "aaa"), (5, "aaa"), (99, "bbb")]):
            await sql(
                connection,
                """INSERT INTO job_workers (id, kind, host, pid, release, queues, types, seen_at)
                   VALUES (%s, 'worker', 'h', 1, '1', '{"default": 5}',
                     jsonb_build_object('test.job', %s::text),
                           now() - %s * interval '1 s')""",
                [f"w{number}", digest, seconds],
            )
        (row,) = await report(connection, "health")
        assert (row["unserved"], row["disagreements"]) == (0, 0)
        await sql(
            connection, "UPDATE job_workers SET seen_at = now(), kind = 'api' WHERE id = 'w2'"
        )
        (row,) = await report(connection, "health")
        assert row["disagreements"] == 1
        await sql(
            connection,
            "UPDATE job_workers SET seen_at = now() - interval '1 h' WHERE kind = 'worker'",
        )
        (row,) = await report(connection, "health")
        assert row["unserved"] == 1  # an API performs nothing

    async def test_stuck_jobs_and_why(self, connection: AsyncConnection[Any]) -> None:
        await sql(
            connection,
            (
                "INSERT INTO job_workers (id, kind, host, pid, release) VALUES ('alive', 'worker', "
                "'h', 1, '1')"
            ),
        )
        await a_job(connection, job_id="fine", status="processing", locked_by="alive")
        await a_job(
            connection,
            job_id="expired",
            status="processing",
            lease_until=timedelta(seconds=-1),
            locked_by="alive",
        )
        await a_job(connection, job_id="orphan", status="processing", locked_by="gone")
        await a_job(
            connection,
            job_id="long",
            status="processing",
            locked_by="alive",
            started_at=timedelta(minutes=-5),
        )
        why = {row["job_id"]: row["why"] for row in await report(connection, "stuck_jobs")}
        assert why == {
            "expired": "lease ran out",
            "orphan": "worker is silent",
            "long": "beyond its timeout",
        }

    async def test_a_user_and_the_limit(self, connection: AsyncConnection[Any]) -> None:
        await a_type(connection, job_type=SIGN_IN, limit_count=2, limit_window="1 h")
        await a_job(
            connection, job_type=SIGN_IN, user_id="user-123", created_at=timedelta(minutes=-50)
        )
        (row,) = await report(connection, "user_signins")
        assert (row["jobs"], row["left_over"], row["next_place"]) == (1, 1, None)
        assert await report(connection, "limits") == []
        await a_job(connection, job_type=SIGN_IN, user_id="user-123")
        (row,) = await report(connection, "user_signins")
        (near,) = await report(connection, "limits")
        assert (row["jobs"], row["left_over"]) == (2, 0)
        assert row["next_place"] - near["next_place"] < timedelta(seconds=1)
        assert near["user_id"] == "user-123"

    async def test_locks_name_who_is_in_the_way(
        self, connection: AsyncConnection[Any], database_url: str
    ) -> None:
        job = await a_job(connection)
        async with (
            await AsyncConnection.connect(database_url, application_name="holder") as holder,
            await AsyncConnection.connect(database_url, application_name="waiter") as waiter,
        ):
            await sql(holder, "UPDATE job_logs SET priority = 1")
            waiting = asyncio.create_task(
                sql(waiter, "SELECT * FROM cancel_job(%s)", [job["job_id"]])
            )
            rows: list[dict[str, Any]] = []

            async def somebody_waits() -> bool:
                rows[:] = await report(connection, "locks")
                return bool(rows)

            await until(somebody_waits)
            assert (rows[0]["application_name"], rows[0]["blocker"]) == ("waiter", "holder")
            await holder.rollback()
            await waiting

    async def test_bloat_names_who_holds_vacuum_back(
        self, connection: AsyncConnection[Any], database_url: str
    ) -> None:
        async with await AsyncConnection.connect(
            database_url, application_name="old report"
        ) as holder:
            await holder.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await sql(holder, "SELECT 1 AS x")
            rows = {row["table"]: row for row in await report(connection, "bloat")}
            assert "old report" in rows["job_logs"]["holder"]
            assert rows["job_logs"]["holding"] > timedelta()

    async def test_growth_is_by_day(self, connection: AsyncConnection[Any]) -> None:
        assert await report(connection, "growth") == []
        await sql(
            connection,
            """INSERT INTO job_logs (id, job_id, job_type, user_id, payload)
               SELECT job_uuid_at(date_trunc('day', now(), 'UTC')
                                  - d * interval '1 day' + n * interval '1 ms'),
                      'j' || d || '-' || n, 'x', 'u', '{}'
                 FROM generate_series(1, 2) d, generate_series(1, 500) n""",
        )
        await sql(connection, "ANALYZE job_logs")
        days = await report(connection, "growth")
        assert len(days) == 2
        assert all(450 <= day["rows_about"] <= 550 for day in days)


ROWS = 100_000


@pytest.fixture(scope="module")
def big() -> dict[int, str]:
    """Databases that hold 100,000 jobs, by major version: made when they are asked for, for all
    tests of this module."""
    return {}


@pytest.fixture
async def crowded(
    pg_server: Server, postgres_major: int, big: dict[int, str], request: pytest.FixtureRequest
) -> AsyncIterator[AsyncConnection[Any]]:
    if postgres_major not in big:
        template = request.getfixturevalue(f"template_{postgres_major}").template_dbname
        big[postgres_major] = f"crowded_{os.getpid()}"
        async with await AsyncConnection.connect(pg_server.url(), autocommit=True) as admin:
            await admin.execute(
                f"CREATE DATABASE {big[postgres_major]} TEMPLATE {template}".encode()
            )
        async with await AsyncConnection.connect(
            pg_server.url(big[postgres_major]), autocommit=True
        ) as connection:
            await fill(connection)
    async with await AsyncConnection.connect(
        pg_server.url(big[postgres_major]), autocommit=True
    ) as connection:
        yield connection


async def fill(connection: AsyncConnection[Any]) -> None:
    """Nearly all completed, of 5,000 users, over ten days; 200 dead, 100 failed."""
    await a_type(connection, job_type=SIGN_IN, limit_count=10, limit_window="1 h")
    await sql(
        connection,
        """INSERT INTO job_logs (id, job_id, job_type, user_id, payload, status, created_at,
             started_at, run_after, processed_at,
                                 dead_at, attempt_count, error)
           SELECT encode(substring(uuid_send(job_uuid_at(m.at)) FOR 8)
                         || substring(uuid_send(m.chance) FROM 9), 'hex')::uuid,
                  'job-' || m.n, 'user.signin.notification', 'user-' || m.n %% 5000, '{}', m.status,
                  m.at, m.at, m.at,
                  CASE WHEN m.status <> 'failed' THEN m.at + interval '50 ms' END,
                  CASE WHEN m.status = 'dlq' THEN m.at END, 1,
                  CASE WHEN m.status <> 'completed' THEN 'connection refused' END
             FROM (SELECT n, now() - (%s - n) * interval '8 s' AS at, gen_random_uuid() AS chance,
                          CASE WHEN n %% 500 = 0 THEN 'dlq' WHEN n %% 1000 = 1 THEN 'failed'
                            ELSE 'completed' END AS status
                     FROM generate_series(1, %s) n) AS m""",
        [ROWS, ROWS],
    )
    await sql(connection, "VACUUM ANALYZE job_logs")


async def plan(connection: AsyncConnection[Any], name: str) -> str:
    rows = await sql(connection, f"EXPLAIN {load(name, 'monitoring')}")
    return "\n".join(row["QUERY PLAN"] for row in rows)


@pytest.mark.parametrize(
    ("name", "index", "count"),
    [
        ("recent_jobs", "job_logs_pkey", 10),
        ("failed_jobs", "job_logs_claim", 100),
        ("dead_jobs", "job_logs_dead", 200),
        ("user_signins", "job_logs_user", 1),
        ("stuck_jobs", "job_logs_claim", 0),
        ("retrying_jobs", "job_logs_claim", 1),
        ("slow_jobs", "job_logs_pkey", 1),
        ("limits", "job_logs_pkey", 0),
        ("dead_letter_errors", "job_logs_dead", 1),
        ("health", "job_logs_dead", 1),
        ("queues", "job_logs_claim", 1),
    ],
)
async def test_a_query_uses_its_index(
    crowded: AsyncConnection[Any], name: str, index: str, count: int
) -> None:
    text = await plan(crowded, name)
    assert index in text, text
    assert "Seq Scan on job_logs" not in text, text
    assert len(await report(crowded, name)) == count


async def test_growth_reads_no_row(crowded: AsyncConnection[Any]) -> None:
    assert " on job_logs" not in await plan(crowded, "growth")
    days = await report(crowded, "growth")
    assert sum(day["rows_about"] for day in days) == pytest.approx(ROWS, rel=0.05)


async def test_the_newest_jobs_are_not_those_that_were_adopted(
    connection: AsyncConnection[Any],
) -> None:
    await a_job(
        connection,
        job_id="adopted",
        id="ffffffff-1111-4111-8111-111111111111",
        created_at=timedelta(days=-9),
    )
    await a_job(connection, job_id="new")
    assert [row["job_id"] for row in await report(connection, "recent_jobs")] == ["new"]
