"""Whatever is set on the database or on the role: nothing of it changes what the queue does."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Literal

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.migrations import migrate
from pgqueue.errors import DependencyDown, Discard, SchemaError, Snooze, Unavailable
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Backoff, Limit, task
from pgqueue.worker.worker import Worker
from tests.support.api import ADMIN, SIGN_IN, SIGNIN, open_api
from tests.support.commands import cli_for
from tests.support.factories import a_job, sql, value
from tests.support.pooler import pooled
from tests.support.scene import published, until, working

Connection = AsyncConnection[Any]

FOREIGN: dict[str, dict[str, str]] = {
    "dates of Germany": {
        "DateStyle": "German, DMY",
        "IntervalStyle": "sql_standard",
        "lc_time": "C",
    },
    "dates of SQL": {
        "DateStyle": "SQL, MDY",
        "IntervalStyle": "iso_8601",
        "TimeZone": "America/New_York",
    },
    "dates of Postgres": {
        "DateStyle": "Postgres, DMY",
        "IntervalStyle": "postgres_verbose",
        "TimeZone": "<+0830>-8:30",
    },
    "texts": {
        "client_encoding": "LATIN1",
        "standard_conforming_strings": "off",
        "bytea_output": "escape",
        "array_nulls": "off",
    },
    "texts in ASCII": {
        "client_encoding": "SQL_ASCII",
        "extra_float_digits": "-15",
        "xmlbinary": "hex",
        "quote_all_identifiers": "on",
    },
    "transactions": {
        "default_transaction_read_only": "on",
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "exit_on_error": "on",
    },
    "isolation": {"default_transaction_isolation": "serializable"},
    "texts of old": {
        "client_encoding": "LATIN1",
        "standard_conforming_strings": "off",
        "bytea_output": "escape",
    },
    "timeouts": {
        "statement_timeout": "200ms",
        "lock_timeout": "1ms",
        "idle_in_transaction_session_timeout": "200ms",
        "idle_session_timeout": "200ms",
        "transaction_timeout": "200ms",
    },
    "plans": {
        "plan_cache_mode": "force_generic_plan",
        "enable_indexscan": "off",
        "enable_nestloop": "off",
        "enable_sort": "off",
        "jit_above_cost": "0",
        "force_parallel_mode": "on",
        "debug_parallel_query": "on",
    },
    "the rest": {
        "row_security": "off",
        "check_function_bodies": "off",
        "transform_null_equals": "on",
        "synchronous_commit": "off",
        "client_min_messages": "debug1",
        "session_replication_role": "replica",
        "plpgsql.extra_errors": "all",
        "lc_messages": "C",
        "temp_tablespaces": "pg_default",
    },
}

LEVELS = ("database", "role")
POOLED = ["dates of Germany", "dates of SQL", "texts in ASCII", "isolation", "texts of old"]
WHOLE = os.environ.get("MATRIX") == "whole"
"""Each group on database and role; else each once: MATRIX=whole python3 dev.py
test tests/schema/test_foreign_settings.py."""

RUSSIAN = "сервер недоступен"

PAYLOADS = ("ok", "retry", "discard", "snooze", "transaction", "progress", "down")


@task("test.job", max_attempts=2, backoff=Backoff(0.01, cap=0.01), timeout="1d")
async def handler(job: Job[Any]) -> None:
    match job.payload:
        case "retry" if job.attempt == 1:
            raise RuntimeError(RUSSIAN)
        case "discard":
            raise Discard(RUSSIAN)
        case "transaction":
            async with job.transaction() as own:
                await own.execute("SELECT pg_sleep(0.3)")
                await asyncio.sleep(0.3)
        case "progress":
            await job.intend()
            await job.progress(0.5, RUSSIAN)


@task("test.other", rate_limit=Limit(2, per="1d"), depends_on="smtp")
async def limited(job: Job[Any]) -> None:
    match job.payload:
        case "snooze" if (datetime.now(UTC) - job.created_at) < timedelta(seconds=1):
            raise Snooze(1)
        case "down":
            raise DependencyDown("smtp", RUSSIAN)


async def set_on(connection: Connection, level: str, foreign: dict[str, str]) -> None:
    """On the database, or on the role in it."""
    database = Identifier(connection.info.dbname)
    where = {
        "database": SQL("DATABASE {}").format(database),
        "role": SQL("ROLE {} IN DATABASE {}").format(Identifier(connection.info.user), database),
    }[level]
    for name, content in foreign.items():
        try:
            # Some take lists.
            words = SQL(", ").join(map(Literal, content.split(", ")))
            await connection.execute(SQL("ALTER {} SET {} = {}").format(where, SQL(name), words))
        except psycopg.errors.UndefinedObject:
            pass  # of another version of Postgres


async def everything(settings: Settings, look: Connection, tmp_path: Path) -> None:
    """A day's work, through every door."""
    cli = cli_for(str(settings.database_url))
    assert (
        await cli("migrate", PGQUEUE_PGBOUNCER="on" if settings.pgbouncer else None)
    ).exit_code == 0
    await published(look, settings, handler, limited)
    async with (
        working(settings, handler, limited),
        AsyncClient.open(settings) as client,
        open_api(settings) as api,
    ):
        assert (await api.get("/readyz")).status_code == 200
        answers = [await api.post(SIGNIN, json=SIGN_IN | {"name": RUSSIAN}) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [202] * 10 + [429]
        assert 3500 < int(answers[-1].headers["retry-after"]) <= 3600
        for payload in PAYLOADS:
            await client.enqueue(handler, payload, job_id=f"1-{payload}")
            await client.enqueue(limited, payload, job_id=f"2-{payload}", user_id=payload)
        await asyncio.gather(*(client.enqueue(handler, "ok", delay="200d") for _ in range(5)))
        later = await client.enqueue(handler, "ok", delay="200d")
        assert await value(
            look,
            "SELECT extract(epoch FROM run_after - created_at) FROM job_logs WHERE job_id = %s",
            [later.job_id],
        ) == pytest.approx(200 * 86_400, abs=60)
        ended = [
            f"{number}-{payload}"
            for number in (1, 2)
            for payload in PAYLOADS
            if (number, payload) != (2, "down")
        ]
        await until(lambda: all_ended(look, ended), 30, f"the end of {ended}")
        assert (await client.get("2-down")).error == RUSSIAN, "put back, for its dependency is down"
        view = await client.get("1-retry")
        assert (view.status, view.attempt_count, view.history[0]["error"]) == (
            "completed",
            2,
            f"RuntimeError: {RUSSIAN}",
        )
        assert view.created_at.tzinfo is not None
        assert [dead.job_id for dead in await client.dead_letters()] == ["1-discard"]
        (dead,) = (await api.get("/api/admin/dlq/list", headers=ADMIN)).json()["jobs"]
        assert RUSSIAN in dead["error"]
        assert (
            await api.post("/api/admin/dlq/retry/1-discard", headers=ADMIN, json={"payload": "ok"})
        ).status_code == 202
        await until(lambda: all_ended(look, ["1-discard"]))
        for route in ("jobs/stats", "workers", "queues", "dlq/errors"):
            assert (await api.get(f"/api/admin/{route}", headers=ADMIN)).status_code == 200
        old = timedelta(days=-40)
        await a_job(look, job_id="old", status="completed", created_at=old, processed_at=old)
        environment = {"PGQUEUE_PGBOUNCER": "on" if settings.pgbouncer else None}
        for command in (
            ["status"],
            ["stats"],
            ["workers"],
            ["queues"],
            ["dlq", "list"],
            ["job", "1-retry"],
            ["check"],
        ):
            result = await cli(*command, "--json", **environment)
            assert result.exit_code in ((0, 1) if command == ["check"] else (0,)), (
                command,
                result.stderr,
            )
        assert (
            await cli("prune", "--archive", str(tmp_path / "archive"), **environment)
        ).exit_code == 0
        assert await sql(look, "SELECT 1 FROM job_logs WHERE job_id = 'old'") == []


async def all_ended(look: Connection, ids: list[str]) -> bool:
    """Whether they have. The next probe of a broken dependency is due at once."""
    await look.execute("UPDATE job_dependencies SET probe_at = now() WHERE probe_at > now()")
    return bool(
        await value(
            look,
            "SELECT count(*) FROM job_logs WHERE job_id = ANY (%s) AND processed_at IS NOT NULL",
            [ids],
        )
        == len(ids)
    )


@pytest.fixture
async def look(empty_database_url: str) -> Any:
    """An eye that was open before anything was set."""
    async with await AsyncConnection.connect(empty_database_url, autocommit=True) as one:
        await one.execute("SET TimeZone = 'UTC'")
        yield one


@pytest.mark.parametrize(
    ("foreign", "level"),
    [
        (foreign, level)
        for number, foreign in enumerate(FOREIGN)
        for level in LEVELS
        if WHOLE or level == LEVELS[number % 2]
    ],
)
async def test_whatever_is_set_nothing_changes(
    settings: Settings,
    empty_database_url: str,
    look: Connection,
    tmp_path: Path,
    foreign: str,
    level: str,
) -> None:
    await set_on(look, level, FOREIGN[foreign])
    await everything(settings.with_(database_url=empty_database_url), look, tmp_path)


@pytest.mark.parametrize("foreign", POOLED if WHOLE else POOLED[::2])
async def test_behind_a_pooler_where_nothing_can_be_set_neither(
    settings: Settings, empty_database_url: str, look: Connection, tmp_path: Path, foreign: str
) -> None:
    await set_on(look, "database", FOREIGN[foreign])
    async with pooled(empty_database_url, tmp_path) as url:
        await everything(settings.with_(database_url=url, pgbouncer=True), look, tmp_path)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("default_transaction_read_only", "on"), ("array_nulls", "off"), ("exit_on_error", "on")],
)
async def test_what_must_be_otherwise_behind_a_pooler_is_named(
    settings: Settings,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    name: str,
    wrong: str,
) -> None:
    await set_on(connection, "database", {name: wrong})
    async with pooled(database_url, tmp_path) as url:
        through = settings.with_(database_url=url, pgbouncer=True)
        words = f"{name} is {wrong}, set on the database: ALTER DATABASE ... RESET {name}"
        result = await cli_for(url)("stats", PGQUEUE_PGBOUNCER="on")
        assert (result.exit_code, words in result.stderr) == (1, True)
        with pytest.raises(SchemaError, match=f"{name} is {wrong}"):
            await Worker(through, []).run()
        async with AsyncClient.open(through, timeout=0.5) as client:
            with pytest.raises(Unavailable, match=f"{name} is {wrong}"):
                await client.enqueue("t", {})


@pytest.mark.parametrize("path", ["", "elsewhere", "pg_catalog"])
async def test_a_search_path_that_leads_elsewhere_is_named(
    database_url: str, connection: Connection, settings: Settings, path: str
) -> None:
    await set_on(connection, "database", {"search_path": path})
    cli = cli_for(database_url)
    result = await cli("stats")
    assert result.exit_code == 1
    assert "in the schema public" in result.stderr
    assert "ALTER DATABASE ... RESET search_path" in result.stderr
    assert (await cli("stats", DATABASE_URL=f"{database_url}?schema=public")).exit_code == 0


async def test_an_empty_search_path_is_named_by_migrate(
    empty_database_url: str, look: Connection
) -> None:
    await set_on(look, "role", {"search_path": ""})
    result = await cli_for(empty_database_url)("migrate")
    assert result.exit_code == 1
    assert "set on the role" in result.stderr


@pytest.mark.parametrize("path", ["", "elsewhere"])
async def test_a_bare_insert_works_under_any_search_path(connection: Connection, path: str) -> None:
    """Also by a trigger of an application's, whose tables are elsewhere."""
    await sql(
        connection,
        "INSERT INTO job_types (job_type, queue, max_attempts) VALUES ('test.job', 'q', 7)",
    )
    await connection.execute("CREATE SCHEMA elsewhere")
    await connection.execute("CREATE TABLE elsewhere.orders (id text)")
    await connection.execute(
        """CREATE FUNCTION elsewhere.ordered() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO public.job_logs (job_id, job_type, user_id, payload)
                VALUES (NEW.id, 'test.job', 'u', '{}');
               PERFORM public.enqueue_job('test.job', '{}', job_id => NEW.id || '-2');
               RETURN NEW;
           END $$"""
    )
    await connection.execute(
        "CREATE TRIGGER ordered AFTER INSERT ON elsewhere.orders FOR EACH ROW EXECUTE FUNCTION "
        "elsewhere.ordered()"
    )
    await connection.execute("SELECT set_config('search_path', %s, false)", [path])
    await connection.execute("INSERT INTO elsewhere.orders VALUES ('j')")
    await connection.execute("SET search_path = public")
    assert await sql(
        connection, "SELECT job_id, queue, max_attempts FROM job_logs ORDER BY job_id"
    ) == [
        {"job_id": "j", "queue": "q", "max_attempts": 7},
        {"job_id": "j-2", "queue": "q", "max_attempts": 7},
    ]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_in_utf8_is_refused(
    empty_database_url: str, look: Connection, encoding: str
) -> None:
    name = f"{look.info.dbname}_other"
    await look.execute(
        SQL("CREATE DATABASE {} ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").format(
            Identifier(name), Literal(encoding)
        )
    )
    url = empty_database_url.replace(look.info.dbname, name)
    try:
        for command in (["migrate"], ["status"], ["stats"], ["worker"]):
            result = await cli_for(url)(*command) if command != ["worker"] else None
            if result is not None:
                assert result.exit_code == 1
                assert f"in the encoding {encoding}, and pgqueue needs UTF-8" in result.stderr
        with pytest.raises(SchemaError, match="UTF-8"):
            await migrate(url)
    finally:
        await look.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
async def test_a_day_has_24_hours_where_clocks_change(
    connection: Connection, settings: Settings, zone: str
) -> None:
    """Within 366 days they change twice, and once in every half of them."""
    await set_on(connection, "database", {"TimeZone": zone})
    await published(connection, settings, handler)
    days = [100, 200, 300]
    async with (
        AsyncClient.open(settings) as client,
        await AsyncConnection.connect(settings.conninfo) as own,
    ):
        for count in days:
            jobs = [NewJob(handler, count, delay=f"{count}d") for _ in range(4)]
            await client.try_enqueue(jobs[0])
            await asyncio.gather(*map(client.try_enqueue, jobs))
            await client.enqueue_many(jobs)
            await client.try_enqueue(jobs[0], connection=own)
        await own.commit()
    rows = await sql(
        connection,
        "SELECT payload, extract(epoch FROM run_after - created_at) AS seconds FROM job_logs",
    )
    assert len(rows) == 10 * len(days)
    for row in rows:
        assert float(row["seconds"]) == pytest.approx(row["payload"] * 86_400, abs=60)
