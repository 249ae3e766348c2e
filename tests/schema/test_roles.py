"""sql/roles.sql: each role can do its work and no more."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from pgqueue import AsyncClient, Job, task
from pgqueue.client import DeadFilter
from pgqueue.database.migrations import check_schema, migrate
from pgqueue.database.processes import entry
from pgqueue.database.retention import prune
from pgqueue.errors import WrongState
from pgqueue.settings import Settings
from pgqueue.worker.worker import Worker
from tests.conftest import Server
from tests.support.factories import a_job, a_type, sql, the_job, value
from tests.support.scene import until

pytestmark = pytest.mark.postgres(15, 18)

ROLES = (files("pgqueue.sql") / "roles.sql").read_text()
DENIED = psycopg.errors.InsufficientPrivilege


@task("role.job", max_attempts=2)
async def handle(job: Job[dict[str, str]]) -> None:
    if job.payload.get("fail"):
        raise RuntimeError("it went wrong")


class Logins:
    """The roles to log in with that roles.sql gives as examples, under names of this test's own."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database
        self.suffix = uuid.uuid4().hex[:8]
        self.names = {
            name: f"{name}_{self.suffix}" for name in re.findall(r"CREATE ROLE (queue_\w+)", ROLES)
        }

    def statements(self) -> list[str]:
        """The examples in the comment, ready to run."""
        found = re.findall(r"^--   ((?:CREATE|ALTER) ROLE [^.\n]*;)$", ROLES, re.MULTILINE)
        text = "\n".join(found).replace(" LOGIN", f" LOGIN PASSWORD '{self.suffix}'")
        return [
            re.sub(r"\bqueue_\w+", lambda m: self.names[m[0]], line) for line in text.splitlines()
        ]

    def url(self, name: str) -> str:
        return self.server.url(self.database, self.names[name], self.suffix)


@pytest.fixture
def logins(pg_server: Server, database_url: str) -> Iterator[Logins]:
    made = Logins(pg_server, conninfo_to_dict(database_url)["dbname"])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ROLES.encode())
        connection.execute(ROLES.encode())  # safe twice
        for statement in made.statements():
            connection.execute(statement.encode())
    yield made
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in made.names.values():
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@asynccontextmanager
async def session(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def refused(connection: AsyncConnection[Any], *statements: str) -> None:
    for statement in statements:
        with pytest.raises(DENIED):
            await connection.execute(statement.encode())


def settings_for(url: str, **changes: Any) -> Settings:
    return Settings(database_url=url).with_(auto_prune=False, **changes)


CHANGES = (
    "INSERT INTO job_logs (job_id, job_type, user_id, payload) VALUES ('x', 'role.job', 'u', '{}')",
    "UPDATE job_logs SET payload = '{}'",
    "UPDATE job_logs SET user_id = 'other'",
    "TRUNCATE job_logs",
    "UPDATE job_queues SET paused = true",
    "INSERT INTO job_queues (queue) VALUES ('q')",
    "DELETE FROM job_types",
    "UPDATE job_migrations SET min_release = 9",
    "ALTER TABLE job_logs ADD COLUMN x integer",
    "DROP FUNCTION cancel_job(text)",
    "CREATE TABLE mine (id integer)",
    "CREATE TRIGGER t BEFORE INSERT ON job_logs FOR EACH ROW "
    "EXECUTE FUNCTION pgqueue_fill_defaults()",
)
"""What none of the working roles may."""


class TestProducer:
    async def test_enqueues_by_the_client_and_by_sql(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_type(connection, job_type="role.job", limit_count=1, limit_window="1 h")
        async with AsyncClient.open(settings_for(logins.url("queue_shop"))) as client:
            ticket = await client.enqueue("role.job", {}, job_id="one", user_id="u1")
            assert ticket.created
            assert not (await client.enqueue("role.job", {}, job_id="one", user_id="u1")).created
            tickets = await client.enqueue_many([])
            assert tickets == []
        async with session(logins.url("queue_shop")) as shop:
            row = await sql(
                shop,
                "SELECT * FROM enqueue_job('role.job', '{}', job_id => 'two', user_id => 'u1')",
            )
            assert row[0]["status"] is None
            assert row[0]["retry_after"]
            await sql(shop, "SELECT ring_doorbell(ARRAY['default'])")

    async def test_can_do_nothing_else(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_job(connection, job_id="secret", status="dlq")
        async with session(logins.url("queue_shop")) as shop:
            await refused(
                shop,
                *CHANGES,
                *(
                    f"SELECT * FROM {name}"
                    for name in (
                        "job_logs",
                        "job_types",
                        "job_workers",
                        "job_tombstones",
                        "job_queues",
                    )
                ),
                "SELECT * FROM cancel_job('secret')",
                "SELECT * FROM replay_job('secret')",
                "SELECT replay_jobs(ARRAY[]::uuid[])",
                "SELECT * FROM delete_dead_job('secret')",
                "SELECT * FROM dead_jobs()",
                "SELECT pause_queue('default', true)",
                "SET ROLE pgqueue_migrator",
                "SET ROLE pgqueue_worker",
            )

    async def test_a_temporary_table_of_the_callers_is_not_taken_for_ours(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_type(connection, job_type="role.job")
        async with session(logins.url("queue_shop")) as shop:
            await sql(shop, "CREATE TEMPORARY TABLE job_types AS SELECT 1 AS x")
            await sql(shop, "CREATE TEMPORARY TABLE job_logs (job_id text, evil text)")
            assert (
                await sql(shop, "SELECT * FROM enqueue_job('role.job', '{}', job_id => 'mine')")
            )[0]["created"]
        assert (await the_job(connection, "mine"))["status"] == "enqueued"


class TestWorker:
    @pytest.mark.parametrize("pooled", [False, True], ids=["direct", "as behind a pooler"])
    async def test_performs_jobs_and_publishes_their_types(
        self, connection: AsyncConnection[Any], logins: Logins, pooled: bool
    ) -> None:
        changes: dict[str, Any] = {
            "pgbouncer": pooled,
            "direct_url": logins.url("queue_worker") if pooled else None,
        }
        settings = settings_for(logins.url("queue_worker"), **changes)
        worker = Worker(settings, [handle])
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(20):
            await worker.ready.wait()
            async with AsyncClient.open(settings) as client:
                await client.enqueue(handle, {}, job_id="fine")
                await client.enqueue(handle, {"fail": "yes"}, job_id="fails", max_attempts=1)

                async def ended() -> bool:
                    return all(
                        [(await client.get(job_id)).status.ended for job_id in ("fine", "fails")]
                    )

                await until(ended)
                assert (await client.get("fine")).status == "completed"
                assert (await client.get("fails")).status == "dlq"
            worker.stop()
            await running
        assert await value(connection, "SELECT count(*) FROM job_workers") == 0

    async def test_rescues_and_prunes(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_type(connection, job_type="role.job")
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 created_at)
               VALUES ('old', 'role.job', 'u', '{}', 'completed', now() - interval '30 days',
                 now() - interval '30 days')""",
        )
        async with session(logins.url("queue_worker")) as worker:
            done = await prune(worker, settings_for(logins.url("queue_worker")))
            assert done.jobs == 1
            await sql(
                connection, "UPDATE job_tombstones SET ended_at = now() - interval '1000 days'"
            )
            done = await prune(worker, settings_for(logins.url("queue_worker")))
            assert done.tombstones == 1

    async def test_can_do_no_more(self, connection: AsyncConnection[Any], logins: Logins) -> None:
        await a_job(connection, job_id="one", status="dlq")
        async with session(logins.url("queue_worker")) as worker:
            await refused(
                worker,
                *CHANGES,
                "UPDATE job_logs SET job_id = 'y'",
                "UPDATE job_logs SET max_attempts = 100",
                "DELETE FROM job_queues",
                "SELECT * FROM cancel_job('one')",
                "SELECT * FROM replay_job('one')",
                "SELECT pause_queue('default', true)",
                "SET ROLE pgqueue_migrator",
            )

    async def test_what_it_cannot_set_for_itself_is_set_on_the_role(self, logins: Logins) -> None:
        async with session(logins.url("queue_worker")) as worker:
            for name, expected in {
                "statement_timeout": "30s",
                "lock_timeout": "30s",
                "idle_in_transaction_session_timeout": "30s",
                "enable_seqscan": "off",
                "enable_bitmapscan": "off",
                "enable_sort": "on",
                "jit": "off",
            }.items():
                assert await value(worker, f"SHOW {name}") == expected, name


class TestReader:
    async def test_sees_everything(self, connection: AsyncConnection[Any], logins: Logins) -> None:
        await a_job(connection, status="dlq")
        async with session(logins.url("queue_look")) as look:
            assert await sql(look, "SELECT * FROM job_logs ORDER BY created_at DESC LIMIT 10")
            assert await sql(look, "SELECT * FROM dead_jobs()")
            await check_schema(look)
        async with AsyncClient.open(settings_for(logins.url("queue_look"))) as client:
            for file in (files("pgqueue.sql") / "monitoring").iterdir():
                if file.name.endswith(".sql"):
                    await client.report(file.name.removesuffix(".sql"))

    async def test_changes_nothing(self, connection: AsyncConnection[Any], logins: Logins) -> None:
        await a_job(connection, job_id="one", status="dlq")
        async with session(logins.url("queue_look")) as look:
            # Not because its transactions are read-only: that anybody can switch off.
            await sql(look, "SET default_transaction_read_only = off")
            await refused(
                look,
                *CHANGES,
                "UPDATE job_logs SET status = 'enqueued'",
                "DELETE FROM job_logs",
                "DELETE FROM job_workers",
                "SELECT * FROM replay_job('one')",
                "SELECT * FROM enqueue_job('role.job', '{}')",
                "SELECT ring_doorbell(ARRAY['default'])",
            )


class TestOperator:
    async def test_does_what_the_api_and_the_command_line_do(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_type(connection, job_type="role.job")
        for number in range(3):
            await a_job(connection, job_id=f"dead-{number}", status="dlq")
        settings = settings_for(logins.url("queue_api"))
        async with AsyncClient.open(settings) as client:
            await client.enqueue("role.job", {}, job_id="one")
            assert (await client.get("one")).status == "enqueued"
            await client.cancel("one")
            await client.replay("one", {"x": 1})
            assert len(await client.dead_letters()) == 3
            assert (await client.replay_many(DeadFilter(job_ids=["dead-0"]))).retried == 1
            await client.delete_dead("dead-1")
            with pytest.raises(WrongState):
                await client.delete_dead("dead-1")
            await client.pause("default")
            await client.resume("default")
            assert (await client.stats()).dlq == 1
        async with session(logins.url("queue_api")) as api:
            await check_schema(api)
            from pgqueue.database.job_types import declarations, publish
            from pgqueue.database.worker_connection import load

            declared = declarations([handle], settings)
            await publish(api, declared)
            await api.execute(load("register_worker"), entry("api-1", "api", "1", {}, declared))
            await api.execute(load("retire_worker"), {"worker": "api-1"})

    async def test_changes_jobs_by_the_functions_alone(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        await a_job(connection, job_id="one", status="dlq")
        async with session(logins.url("queue_api")) as api:
            await refused(
                api,
                *CHANGES,
                "UPDATE job_logs SET status = 'enqueued'",
                "DELETE FROM job_logs",
                "DELETE FROM job_tombstones",
                "SET ROLE pgqueue_migrator",
            )


class TestMigrator:
    async def test_everything_is_its_own_and_nothing_lends_rights_to_everybody(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        """A migration that makes a table or a function has to be told of in roles.sql."""
        strangers = await sql(
            connection,
            """SELECT c.relname AS name FROM pg_class c
                WHERE c.relnamespace = 'public'::regnamespace
                  AND c.relowner <> 'pgqueue_migrator'::regrole
                UNION ALL
               SELECT p.proname FROM pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace
                  AND p.proowner <> 'pgqueue_migrator'::regrole
                UNION ALL
               SELECT t.typname FROM pg_type t
                WHERE t.typnamespace = 'public'::regnamespace
                  AND t.typowner <> 'pgqueue_migrator'::regrole""",
        )
        assert strangers == []
        lending = await sql(
            connection,
            """SELECT p.proname, p.proconfig, has_function_privilege('public', p.oid, 'EXECUTE')
                 AS open FROM pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef""",
        )
        assert len(lending) == 12
        for function in lending:
            assert not function["open"], function
            assert "search_path=public, pg_temp" in function["proconfig"], function
        unread = await sql(
            connection,
            """SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
                 AND c.relkind = 'r'
                  AND NOT has_table_privilege('pgqueue_reader', c.oid, 'SELECT')""",
        )
        assert unread == []

    async def test_a_deployer_makes_things_that_belong_to_it(
        self, connection: AsyncConnection[Any], logins: Logins
    ) -> None:
        assert await migrate(logins.url("queue_deploy")) == []
        async with session(logins.url("queue_deploy")) as deploy:
            await sql(deploy, "ALTER TABLE job_types ADD COLUMN later integer")
            await sql(deploy, "CREATE TABLE job_later (id integer)")
            owner = await value(
                deploy, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'job_later'"
            )
            assert owner == "pgqueue_migrator"
            await refused(deploy, "CREATE ROLE more")


async def test_roles_for_a_schema_of_its_own(empty_database_url: str) -> None:
    async with session(empty_database_url) as owner:
        await sql(owner, 'CREATE SCHEMA "my jobs"')
        url = Settings(database_url=f"{empty_database_url}?schema=my jobs").direct_conninfo
        await migrate(url)
        with pytest.raises(psycopg.errors.RaiseException, match="not on the search path"):
            await owner.execute(ROLES.encode())
        await sql(owner, "ROLLBACK")
    async with session(url) as there:
        await there.execute(ROLES.encode())
        await there.execute(ROLES.encode())
        await a_type(there, job_type="role.job")
        await sql(there, "SET ROLE pgqueue_producer")
        assert (await sql(there, "SELECT * FROM enqueue_job('role.job', '{}', job_id => 'one')"))[
            0
        ]["created"]
        await refused(there, "SELECT * FROM job_logs")
        await sql(there, "RESET ROLE")


async def test_roles_can_be_made_by_an_owner_who_is_no_superuser(
    pg_server: Server, empty_database_url: str
) -> None:
    name, database = f"owner_{uuid.uuid4().hex[:8]}", conninfo_to_dict(empty_database_url)["dbname"]
    async with session(empty_database_url) as super_user:
        # The group roles belong to the whole server, and another test may have made them.
        await sql(super_user, f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'x'")
        if super_user.info.server_version >= 160000:
            for role in ("migrator", "producer", "worker", "reader", "operator"):
                await super_user.execute(
                    f"""DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles
                         WHERE rolname = 'pgqueue_{role}')
                        THEN GRANT pgqueue_{role} TO {name} WITH ADMIN OPTION; END IF;
                          END $$""".encode()
                )
        await sql(super_user, f"ALTER DATABASE {database} OWNER TO {name}")
        url = pg_server.url(database, name, "x")
        await migrate(url)
        async with session(url) as owner:
            await owner.execute(ROLES.encode())
            await owner.execute(ROLES.encode())
        # What worked goes on working.
        await migrate(url)
        async with session(url) as owner:
            await a_type(owner, job_type="role.job")
            assert (
                await sql(owner, "SELECT * FROM enqueue_job('role.job', '{}', job_id => 'one')")
            )[0]["created"]
        await super_user.execute(
            f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}".encode()
        )
