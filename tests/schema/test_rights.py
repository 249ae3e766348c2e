"""sql/roles.sql, tried out to the end: every role at every table, column and function, and at the
ways out of the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from pgqueue import Job, task
from pgqueue.settings import Settings
from tests.conftest import Server
from tests.support.api import open_api
from tests.support.factories import a_job
from tests.support.factories import sql as rows_of
from tests.support.logins import ROLES, url_of
from tests.support.processes import a_worker
from tests.support.scene import link, published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]

TABLES = {
    "job_logs",
    "job_types",
    "job_queues",
    "job_workers",
    "job_tombstones",
    "job_dependencies",
    "job_migrations",
    "job_functions",
}
WORKING = ("producer", "worker", "reader", "operator")

ATTEMPT = {"status", "attempt_count", "run_after", "lease", "started_at", "lease_until",
    "processed_at", "dead_at", "locked_by",
           "error", "stack_trace", "progress", "progress_note", "history", "intent_at",
           "receipt"}  # fmt: skip
"""The columns of job_logs that an attempt changes."""

REGISTRY = {"job_types": {"INSERT", "UPDATE"}, "job_workers": {"INSERT", "UPDATE", "DELETE"}}

MAY: dict[str, dict[str, set[str]]] = {
    "producer": {},
    "reader": {table: {"SELECT"} for table in TABLES},
    "operator": {table: {"SELECT"} | REGISTRY.get(table, set()) for table in TABLES},
    "worker": {table: {"SELECT"} | REGISTRY.get(table, set()) for table in TABLES}
    | {
        "job_logs": {"SELECT", "UPDATE", "DELETE"},
        "job_tombstones": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "job_dependencies": {"SELECT", "INSERT", "UPDATE"},
    },
}
POLICY = {"queue", "max_attempts", "limit_count", "limit_window", "user_from", "backoff_base",
    "backoff_cap", "timeout",
          "depends_on", "admin", "published_at"}  # fmt: skip
"""The columns of job_types that publishing changes: one that is renamed would leave its name to
another."""

SOME_COLUMNS = {
    ("worker", "job_logs"): ATTEMPT,
    ("worker", "job_tombstones"): {"ended_at"},
    ("worker", "job_types"): POLICY,
    ("operator", "job_types"): POLICY,
}
"""Where UPDATE is not of the whole row."""

INTERNAL = {
    "pgqueue_uuid",
    "pgqueue_job_type",
    "pgqueue_limit_lock",
    "pgqueue_owner",
    "pgqueue_known_job",
    "pgqueue_admit",
    "pgqueue_items",
    "pgqueue_late_jobs",
    "pgqueue_unchanged_job",
    "pgqueue_rows",
    "pgqueue_stored_payload",
}
"""Called by the other functions alone."""

LOOKING = {
    "pgqueue_limit_wait",
    "dead_jobs",
    "pgqueue_readable_job",
    "pgqueue_span",
    "job_uuid_at",
    "pgqueue_digest",
    "pgqueue_id_hash",
    "pgqueue_time",
}
ENQUEUING = {
    "enqueue_job",
    "pgqueue_try_enqueue",
    "pgqueue_enqueue_many",
    "pgqueue_enqueue_group",
    "ring_doorbell",
}
WORKING_ONES = {
    "pgqueue_history",
    "pgqueue_moment",
    "pgqueue_dependency_failed",
    "pgqueue_dependency_probed",
    "pgqueue_dependency_works",
    "pgqueue_claim_probe",
}
STEERING = {
    "cancel_job",
    "replay_job",
    "replay_jobs",
    "delete_dead_job",
    "pause_queue",
    "pgqueue_is_admin",
}
FUNCTIONS = INTERNAL | LOOKING | ENQUEUING | WORKING_ONES | STEERING
CALLS = {
    "producer": ENQUEUING,
    "reader": LOOKING,
    "operator": LOOKING | ENQUEUING | STEERING,
    "worker": LOOKING | ENQUEUING | WORKING_ONES,
}


@pytest.fixture
def roles(pg_server: Server, database_url: str) -> dict[str, str]:
    """Group -> the URL of somebody who is in that one and in no other."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        for role in WORKING:
            name = sql.Identifier(f"only_{role}")
            if (
                owner.execute(
                    "SELECT FROM pg_roles WHERE rolname = %s", [f"only_{role}"]
                ).fetchone()
                is None
            ):
                owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
            owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(f"pgqueue_{role}"), name))
    database = database_url.rpartition("/")[2]
    return {role: pg_server.url(database, f"only_{role}", "x") for role in WORKING}


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def allowed(connection: Connection, statement: str) -> bool:
    """Whether it may; what else is wrong with the statement does not matter, and what it did is
    undone."""
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        return True
    return True


async def columns(connection: Connection) -> dict[str, dict[str, str]]:
    """Table -> column -> type, of everything in the schema that has columns."""
    found: dict[str, dict[str, str]] = {}
    for row in await rows_of(
        connection,
        """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_attribute a
             JOIN pg_class c ON c.oid = a.attrelid
            WHERE c.relnamespace = 'public'::regnamespace
              AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
              AND a.attnum > 0 AND NOT a.attisdropped""",
    ):
        found.setdefault(row["relname"], {})[row["attname"]] = row["type"]
    return found


@pytest.mark.parametrize("role", WORKING)
async def test_at_every_table_and_column(
    connection: Connection, roles: dict[str, str], role: str
) -> None:
    tables = await columns(connection)
    assert set(tables) == TABLES, "a new table: say in roles.sql and here who may do what with it"
    may = MAY[role]
    async with session(roles[role]) as somebody:
        for table, of in tables.items():
            verbs = may.get(table, set())
            for column, kind in of.items():
                for verb, statement in {
                    "SELECT": f"SELECT {column} FROM {table} LIMIT 0",
                    "INSERT": f"INSERT INTO {table} ({column}) SELECT NULL::{kind} WHERE false",
                    "UPDATE": f"UPDATE {table} SET {column} = NULL WHERE false",
                }.items():
                    expected = verb in verbs
                    if verb == "UPDATE" and expected:
                        expected = column in SOME_COLUMNS.get((role, table), of)
                    assert await allowed(somebody, statement) is expected, statement
            assert await allowed(somebody, f"DELETE FROM {table} WHERE false") is (
                "DELETE" in verbs
            ), table
            assert await allowed(somebody, f"SELECT * FROM {table} FOR UPDATE") is (
                "UPDATE" in verbs
            ), table


OF_AN_OWNER = (
    "TRUNCATE {0}",
    "ALTER TABLE {0} ADD COLUMN more integer",
    "ALTER TABLE {0} DISABLE TRIGGER ALL",
    "ALTER TABLE {0} OWNER TO CURRENT_USER",
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON {0} USING (true)",
    "CREATE INDEX ON {0} ((1))",
    "CREATE TRIGGER mine BEFORE INSERT ON {0} FOR EACH ROW "
    "EXECUTE FUNCTION pgqueue_fill_defaults()",
    "CREATE RULE mine AS ON INSERT TO {0} DO INSTEAD NOTHING",
    "COMMENT ON TABLE {0} IS 'mine'",
    "DROP TABLE {0} CASCADE",
)


@pytest.mark.parametrize("role", WORKING)
async def test_what_is_an_owners_alone(
    connection: Connection, roles: dict[str, str], role: str
) -> None:
    functions = await rows_of(
        connection,
        (
            "SELECT oid::regprocedure::text AS f FROM pg_proc WHERE pronamespace = "
            "'public'::regnamespace"
        ),
    )
    async with session(roles[role]) as somebody:
        for table in TABLES:
            for statement in OF_AN_OWNER:
                assert not await allowed(somebody, statement.format(table)), statement.format(table)
        for function in functions:
            for change in ("OWNER TO CURRENT_USER", "SECURITY INVOKER", "RESET search_path"):
                assert not await allowed(somebody, f"ALTER FUNCTION {function['f']} {change}"), (
                    function
                )


SAMPLES = {
    "text": "'x'",
    "jsonb": "'[]'",
    "interval": "'1 s'",
    "integer": "1",
    "smallint": "1",
    "boolean": "true",
    "bytea": "''",
}


@pytest.mark.parametrize("role", WORKING)
async def test_at_every_function(connection: Connection, roles: dict[str, str], role: str) -> None:
    await a_job(connection, job_id="x", status="dlq", job_type="x")
    functions = await rows_of(
        connection,
        """SELECT p.proname AS name,
                  array(SELECT format_type(a.t, NULL)
                   FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (t, n)
                         ORDER BY n) AS types
             FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
               AND p.prorettype <> 'trigger'::regtype""",
    )
    assert {one["name"] for one in functions} == FUNCTIONS, "a new function: who may call it?"
    async with session(roles[role]) as somebody:
        for one in functions:
            given = ", ".join(
                f"{SAMPLES.get(kind, 'NULL')}::{kind}"
                if not kind.endswith("[]")
                else f"'{{}}'::{kind}"
                for kind in one["types"]
            )
            assert await allowed(somebody, f"SELECT * FROM {one['name']}({given})") is (
                one["name"] in CALLS[role]
            ), one["name"]


WAYS_OUT = (
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET ROLE pgqueue_migrator",
    "SET ROLE only_{other}",
    "SET session_replication_role = replica",
    "SET log_statement = 'none'",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "CREATE ROLE mine",
    "GRANT pgqueue_migrator TO CURRENT_USER",
    "CREATE DATABASE mine",
    "CREATE SCHEMA mine",
    "CREATE TABLE mine (id integer)",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE c AS 'libc.so.6', 'getpid'",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION pgqueue_fill_defaults()",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE FOREIGN DATA WRAPPER mine",
    "ALTER SYSTEM SET log_statement = 'all'",
    "ALTER DATABASE {database} SET search_path = pg_temp",
    "ALTER DEFAULT PRIVILEGES FOR ROLE pgqueue_migrator GRANT SELECT ON TABLES TO PUBLIC",
    "DROP OWNED BY pgqueue_migrator",
    "REASSIGN OWNED BY pgqueue_migrator TO CURRENT_USER",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/never'",
    "CREATE TEMPORARY TABLE t (x text); COPY t FROM '/etc/passwd'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend({pid})",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_hba_file_rules",
)


@pytest.mark.parametrize("role", WORKING)
async def test_at_the_ways_out(connection: Connection, roles: dict[str, str], role: str) -> None:
    other = next(one for one in WORKING if one != role)
    (database,) = (await rows_of(connection, "SELECT current_database() AS name"))[0].values()
    names = {"other": other, "database": database, "pid": connection.info.backend_pid}
    async with session(roles[role]) as somebody:
        for statement in WAYS_OUT:
            # Not in a transaction, where some are refused whoever says them. The tables of another
            # database are not at stake.
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await somebody.execute(statement.format(**names).encode())


@pytest.mark.parametrize("role", WORKING)
async def test_a_role_passes_nothing_on(
    connection: Connection, roles: dict[str, str], role: str
) -> None:
    """GRANT without the right to grant is a warning in Postgres, and no error."""
    async with session(roles[role]) as somebody:
        for statement in (
            f"GRANT ALL ON {', '.join(TABLES)} TO PUBLIC",
            "GRANT EXECUTE ON FUNCTION cancel_job(text) TO PUBLIC",
        ):
            with suppress(psycopg.errors.InsufficientPrivilege):
                await somebody.execute(statement.encode())
    passed_on = await rows_of(
        connection,
        """SELECT c.relname FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
            WHERE c.relnamespace = 'public'::regnamespace AND acl.grantee = 0
            UNION ALL SELECT p.proname FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace
              AND has_function_privilege('public', p.oid, 'EXECUTE')""",
    )
    assert passed_on == []


def test_every_table_and_function_is_named_in_roles_sql() -> None:
    for name in TABLES | FUNCTIONS:
        assert f"'{name}'" in ROLES, name


@task("test.job")
async def handler(job: Job[Any]) -> None: ...


class TestTheTestsThemselves:
    """What is tested elsewhere is tested with the rights that it has in production."""

    async def test_the_api_is_an_operator(self, settings: Settings) -> None:
        async with (
            open_api(settings) as api,
            api._transport.app.state.gateway.client.pool.connection() as connection,
        ):  # type: ignore[attr-defined]
            await is_no_more_than(connection, "queue_api")

    async def test_a_worker_is_a_worker(self, connection: Connection, settings: Settings) -> None:
        async with link(settings) as one:
            await is_no_more_than(await one.connect(), "queue_worker")
        await published(connection, settings, handler)
        async with working(settings, handler):
            assert await connected(connection) == {"queue_worker"}

    async def test_a_process_too(
        self, connection: Connection, database_url: str, tmp_path: Path
    ) -> None:
        async with a_worker(database_url, tmp_path / "ledger"):

            async def there() -> bool:
                return await connected(connection) == {"queue_worker"}

            await until(there)

    async def test_nothing_that_takes_settings_is_the_owner(
        self, settings: Settings, database_url: str
    ) -> None:
        assert settings.database_url == url_of("queue_program", database_url) != database_url


async def is_no_more_than(connection: Connection, login: str) -> None:
    cursor = await connection.execute(
        """SELECT session_user::text, current_user::text, rolsuper OR rolcreaterole OR rolcreatedb
             OR rolbypassrls,
                  pg_has_role('pgqueue_migrator', 'MEMBER') FROM pg_roles
                   WHERE rolname = current_user"""
    )
    assert await cursor.fetchall() == [(login, login, False, False)]


async def connected(connection: Connection) -> set[str]:
    rows = await rows_of(
        connection,
        """SELECT DISTINCT usename::text AS name FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()""",
    )
    return {row["name"] for row in rows}
