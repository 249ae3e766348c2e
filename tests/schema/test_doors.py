"""The database is closed unless a right was granted, and what a producer says is not believed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from pgqueue import AsyncClient, Job, Limit, task
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import migrate, others_may_create
from pgqueue.errors import InvalidJob
from pgqueue.settings import Settings
from tests.conftest import Server
from tests.schema.test_rights import TABLES
from tests.support.commands import cli_for
from tests.support.factories import a_job, a_type, value
from tests.support.factories import sql as rows_of
from tests.support.logins import ROLES

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
DENIED = psycopg.errors.InsufficientPrivilege

OPEN_TO_ALL = """
    SELECT p.proname::text AS name FROM pg_proc p
     WHERE p.pronamespace = 'public'::regnamespace
       AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE a.grantee = 0)
     UNION ALL
    SELECT c.relname FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace
       AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0)
     UNION ALL
    SELECT t.typname FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
     WHERE t.typnamespace = 'public'::regnamespace AND c.relkind = 'c'
       AND EXISTS (SELECT FROM aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
        WHERE a.grantee = 0)"""
"""What of ours every role of the server has a right to: for functions and types that is the default
of Postgres."""


@task("doors.mail", admin=True)
async def mail(job: Job[Any]) -> None: ...


@task("doors.mail")
async def mail_for_all(job: Job[Any]) -> None: ...


@task("doors.limited", rate_limit=Limit(2, per="1d"), user_from="userId")
async def limited(job: Job[Any]) -> None: ...


def a_login(server: Server, url: str, name: str, *groups: str) -> str:
    """The URL of a login with these groups and no other right; made when it is not there."""
    with psycopg.connect(url, autocommit=True) as owner:
        if owner.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
            owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        for group in groups:
            owner.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name))
            )
    return server.url(url.rpartition("/")[2], name, "x")


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


@pytest.fixture
async def shop(pg_server: Server, database_url: str) -> AsyncIterator[Connection]:
    """Holds the producer's role and no other."""
    async with session(
        a_login(pg_server, database_url, "only_producer", "pgqueue_producer")
    ) as connection:
        yield connection


@pytest.fixture
def worker_url(pg_server: Server, database_url: str) -> str:
    return a_login(pg_server, database_url, "only_worker", "pgqueue_worker")


class TestNobody:
    """A login without any right of its own, in a database where roles.sql has not run."""

    async def test_may_call_nothing_and_read_nothing(
        self, pg_server: Server, empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        async with session(a_login(pg_server, empty_database_url, "only_nobody")) as nobody:
            for statement in (
                "SELECT * FROM enqueue_job('t', '{}')",
                "SELECT * FROM cancel_job('x')",
                "SELECT * FROM replay_job('x', '{}')",
                "SELECT pause_queue('default', true)",
                "SELECT pgqueue_uuid()",
                *(f"SELECT * FROM {table}" for table in TABLES),
            ):
                with pytest.raises(DENIED):
                    await nobody.execute(statement.encode())

    async def test_nothing_is_for_everybody_whatever_the_owner_gives_by_default(
        self, empty_database_url: str
    ) -> None:
        async with session(empty_database_url) as owner:
            await rows_of(owner, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
            await rows_of(owner, "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC")
            await rows_of(
                owner, "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TYPES TO PUBLIC"
            )
            await migrate(empty_database_url)
            assert await rows_of(owner, OPEN_TO_ALL) == []
            await migrate(empty_database_url)
            assert await rows_of(owner, OPEN_TO_ALL) == []
            await rows_of(owner, "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC")

    async def test_roles_sql_takes_back_what_was_given_to_everybody(
        self, connection: Connection
    ) -> None:
        await rows_of(connection, "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC")
        await rows_of(connection, "GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC")
        await rows_of(connection, "GRANT USAGE ON TYPE job_ticket TO PUBLIC")
        assert await rows_of(connection, OPEN_TO_ALL) != []
        await connection.execute(ROLES.encode())
        assert await rows_of(connection, OPEN_TO_ALL) == []

    async def test_a_table_that_is_called_as_our_ledger_is_not_taken_for_it(
        self, empty_database_url: str
    ) -> None:
        """A trigger on it would run with the rights of the role that migrates."""
        async with session(empty_database_url) as owner:
            await rows_of(owner,
                "CREATE TABLE job_migrations (version integer, name text, checksum text, "
                "min_release integer, "
                                 "applied_at timestamptz)")  # fmt: skip
        with pytest.raises(Exception, match="pgqueue did not make"):
            await migrate(empty_database_url)


async def complaint(connection: Connection, statement: LiteralString) -> str | None:
    try:
        await connection.execute(statement)
    except psycopg.Error as error:
        return str(error)
    return None


class TestInserts:
    async def test_a_right_to_insert_is_all_that_a_bare_insert_needs(
        self, pg_server: Server, empty_database_url: str
    ) -> None:
        """Neither the functions behind defaults and triggers, nor a look at job_types, nor our
        schema on the path."""
        await migrate(empty_database_url)
        async with session(empty_database_url) as owner:
            await a_type(owner, job_type="doors.bare", queue="slow", max_attempts=7)
            url = a_login(pg_server, empty_database_url, "only_inserter")
            await rows_of(owner, "GRANT USAGE ON SCHEMA public TO only_inserter")
            await rows_of(owner, "GRANT INSERT ON job_logs TO only_inserter")
            async with session(url) as inserter:
                await rows_of(inserter, "SET search_path = pg_catalog")
                wrong = await complaint(
                    inserter,
                    "INSERT INTO public.job_logs (job_id, job_type, user_id, payload) "
                    "VALUES ('j', 'doors.bare', 'u', '{}')",
                )
            assert wrong is None
            (row,) = await rows_of(owner, "SELECT * FROM job_logs")
            assert (row["queue"], row["max_attempts"], row["status"]) == ("slow", 7, "enqueued")
            assert row["payload_digest"] == await value(
                owner, "SELECT pgqueue_digest('doors.bare', 'u', '{}')"
            )

    async def test_ids_are_made_in_the_order_of_time(self, connection: Connection) -> None:
        ids = [await value(connection, "SELECT pgqueue_uuid()") for _ in range(20)]
        assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
        assert [one.int >> 64 for one in ids] == sorted(one.int >> 64 for one in ids)
        made = await value(
            connection, "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000"
        )
        assert abs((ids[-1].int >> 80) - made) < 10_000


class TestLimits:
    """A limit of two, and one who holds only the producer's role."""

    @pytest.fixture(autouse=True)
    async def declared(self, connection: Connection, settings: Settings) -> None:
        await publish(connection, declarations([limited], settings))
        await a_type(connection, job_type="doors.free")

    @pytest.mark.parametrize("function", ["pgqueue_enqueue_many", "pgqueue_enqueue_group"])
    async def test_jobs_of_other_types_in_the_same_call_are_no_way_round_it(
        self, connection: Connection, shop: Connection, function: LiteralString
    ) -> None:
        for turn in range(3):
            limited_ones = [an_item(f"{turn}-{number}") for number in range(5)]
            free = {"job_id": f"free-{turn}", "job_type": "doors.free", "payload": {}}
            for jobs in ([free, *limited_ones], [*limited_ones, free]):
                await rows_of(shop, f"SELECT * FROM {function}(%s)", [json.dumps(jobs)])
        assert await places(connection) == 2

    @pytest.mark.parametrize("function", ["pgqueue_enqueue_many", "pgqueue_enqueue_group"])
    async def test_the_earlier_jobs_of_a_user_take_the_places(
        self, connection: Connection, shop: Connection, function: LiteralString
    ) -> None:
        """Whatever their ids; and what one call has a duplicate for stays free for the next job."""
        jobs = [an_item(name) for name in ("z", "y", "x", "a")]
        answers = await rows_of(shop, f"SELECT * FROM {function}(%s)", [json.dumps(jobs)])
        assert [row["ord"] for row in answers if row["refusal"]] == [3, 4]
        await rows_of(
            connection, "UPDATE job_types SET limit_count = 3 WHERE user_from IS NOT NULL"
        )
        jobs = [an_item(name) for name in ("y", "z", "z", "n", "m")]
        answers = await rows_of(shop, f"SELECT * FROM {function}(%s)", [json.dumps(jobs)])
        assert [(row["ord"], row["status"], row["refusal"]) for row in answers if row["ord"]] == [
            (1, "enqueued", None),
            (2, "enqueued", None),
            (3, "enqueued", None),
            (5, None, "rate_limited"),
        ]
        await rows_of(
            connection, "UPDATE job_types SET limit_count = 4 WHERE user_from IS NOT NULL"
        )
        jobs = [an_item("q"), an_item("b")]
        answers = await rows_of(shop, f"SELECT * FROM {function}(%s)", [json.dumps(jobs)])
        assert [row["ord"] for row in answers if row["refusal"]] == [2]
        assert await places(connection) == 4

    @pytest.mark.parametrize(
        "filled", [{"userId": "victim"}, [{"userId": "victim"}], "victim", None, {"userId": None}]
    )
    async def test_what_is_filled_in_does_not_change_whose_job_it_is(
        self, connection: Connection, shop: Connection, filled: Any
    ) -> None:
        given = json.dumps(filled)
        many = json.dumps([{**an_item(name), "filled": filled} for name in ("b", "c")])
        await rows_of(
            shop,
            "SELECT * FROM pgqueue_try_enqueue('doors.limited', '{\"userId\": \"u\"}', 'a', "
            "filled => %s)",
            [given],
        )
        await rows_of(shop, "SELECT * FROM pgqueue_enqueue_many(%s)", [many])
        await rows_of(
            connection, "UPDATE job_types SET limit_count = 9 WHERE limit_count IS NOT NULL"
        )
        await rows_of(
            shop,
            "SELECT * FROM pgqueue_enqueue_group(%s)",
            [many.replace('"c"', '"d"')],
        )
        stored = await rows_of(
            connection, "SELECT DISTINCT user_id, payload ->> 'userId' AS named FROM job_logs"
        )
        assert stored == [{"user_id": "u", "named": "u"}]

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    @pytest.mark.parametrize(
        "call",
        [
            "pgqueue_try_enqueue('doors.limited', '{\"userId\": \"u\"}', %(id)s)",
            "enqueue_job('doors.limited', '{\"userId\": \"u\"}', %(id)s)",
            "pgqueue_enqueue_many(%(jobs)s)",
            "pgqueue_enqueue_group(%(jobs)s)",
        ],
        ids=["try_enqueue", "enqueue_job", "many", "group"],
    )
    async def test_it_is_not_counted_in_an_old_snapshot(
        self, connection: Connection, shop: Connection, call: LiteralString, level: LiteralString
    ) -> None:
        await rows_of(shop, f"BEGIN ISOLATION LEVEL {level}")
        await rows_of(shop, "SELECT 1")
        for number in range(2):
            await rows_of(
                connection,
                "SELECT enqueue_job('doors.limited', '{\"userId\": \"u\"}', %s)",
                [f"before-{number}"],
            )
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            await rows_of(
                shop, f"SELECT * FROM {call}", {"id": "mine", "jobs": json.dumps([an_item("mine")])}
            )
        await shop.execute("ROLLBACK")
        assert await places(connection) == 2

    async def test_a_day_is_24_hours_in_every_time_zone_of_the_callers(
        self, connection: Connection, shop: Connection
    ) -> None:
        """A zone of one's own making moves its clock by 20 hours, twelve hours ago."""
        await rows_of(
            connection, "UPDATE job_types SET limit_window = '1 day' WHERE limit_count IS NOT NULL"
        )
        for name in ("a", "b"):
            await a_job(connection, job_id=name, job_type="doors.limited", user_id="u")
        await rows_of(connection, "UPDATE job_logs SET created_at = now() - interval '23 hours'")
        for zone, east in (("AAA0BBB-20", 0), ("AAA-10BBB10", 10)):
            then = await value(
                connection, "SELECT now() AT TIME ZONE 'UTC' + %s * interval '1 h'", [east - 12]
            )
            day = then.timetuple().tm_yday - 1
            shift = f"{zone},{day}/{then.hour},{(day + 60) % 365}"
            await rows_of(shop, "SELECT set_config('TimeZone', %s, false)", [shift])
            await rows_of(
                shop,
                "SELECT * FROM pgqueue_try_enqueue('doors.limited', '{\"userId\": \"u\"}', %s)",
                [f"one {shift}"],
            )
            for function in ("pgqueue_enqueue_many", "pgqueue_enqueue_group"):
                jobs = json.dumps([an_item(f"{function} {number} {shift}") for number in range(2)])
                await rows_of(shop, f"SELECT * FROM {function}(%s)", [jobs])
        assert await places(connection) == 2

    async def test_savepoints_and_locks_taken_before_change_nothing(
        self, connection: Connection, shop: Connection
    ) -> None:
        (lock,) = (await rows_of(connection, "SELECT pgqueue_limit_lock('doors.limited', 'u')"))[
            0
        ].values()
        await rows_of(shop, "SELECT pg_advisory_lock(%s)", [lock])
        for number in range(6):
            await rows_of(shop, "BEGIN")
            await rows_of(shop, "SAVEPOINT s")
            await rows_of(
                shop,
                "SELECT * FROM enqueue_job('doors.limited', '{\"userId\": \"u\"}', %s)",
                [f"s{number}"],
            )
            if number % 2:
                await rows_of(shop, "ROLLBACK TO s")
            await rows_of(
                shop,
                "SELECT * FROM enqueue_job('doors.limited', '{\"userId\": \"u\"}', %s)",
                [f"t{number}"],
            )
            await rows_of(shop, "COMMIT")
        assert await places(connection) == 2

    @pytest.mark.parametrize(
        "given",
        [
            "priority => 10",
            "priority => -1",
            "max_attempts => 0",
            "max_attempts => 1001",
            "max_attempts => 70000",
            "run_after => 'infinity'",
            "run_after => '0044-01-01 BC'",
            "queue => ''",
            "user_id => 'other'",
            "job_id => ''",
            "job_id => repeat('x', 256)",
        ],
    )
    async def test_a_value_out_of_range_is_refused(
        self, connection: Connection, shop: Connection, given: LiteralString
    ) -> None:
        with pytest.raises((psycopg.IntegrityError, psycopg.DataError)):
            await rows_of(
                shop,
                f"SELECT * FROM enqueue_job('doors.limited', '{{\"userId\": \"u\"}}', {given})",
            )
        assert await places(connection) == 0


def an_item(job_id: str) -> dict[str, Any]:
    return {"job_id": job_id, "job_type": "doors.limited", "payload": {"userId": "u"}}


async def places(connection: Connection) -> int:
    return int(
        await value(connection, "SELECT count(*) FROM job_logs WHERE job_type = 'doors.limited'")
    )


CALLS: tuple[LiteralString, ...] = (
    "enqueue_job('doors.mail', '{}', %(id)s)",
    "pgqueue_try_enqueue('doors.mail', '{}', %(id)s)",
    "pgqueue_enqueue_many(%(jobs)s)",
    "pgqueue_enqueue_group(%(jobs)s)",
    "pgqueue_enqueue_many(%(mixed)s)",
    "pgqueue_enqueue_group(%(mixed)s)",
)

CALLED = ("enqueue_job", "try_enqueue", "many", "group", "mixed many", "mixed group")


def with_mail(job_id: str) -> dict[str, str]:
    mine = {"job_id": job_id, "job_type": "doors.mail", "payload": {}, "user_id": "u"}
    return {
        "id": job_id,
        "jobs": json.dumps([mine]),
        "mixed": json.dumps([an_item(f"{job_id}-beside"), mine]),
    }


class TestAdmin:
    """Types with admin=True are for administrators whoever enqueues, and not over HTTP alone."""

    @pytest.fixture(autouse=True)
    async def declared(self, connection: Connection, settings: Settings) -> None:
        await publish(connection, declarations([limited, mail], settings))

    @pytest.mark.parametrize("call", CALLS, ids=CALLED)
    async def test_a_producer_may_not(
        self, connection: Connection, shop: Connection, call: LiteralString
    ) -> None:
        with pytest.raises(DENIED, match="is for administrators"):
            await rows_of(shop, f"SELECT * FROM {call}", with_mail("a"))
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    @pytest.mark.parametrize("call", CALLS, ids=CALLED)
    async def test_an_operator_may(
        self, pg_server: Server, connection: Connection, database_url: str, call: LiteralString
    ) -> None:
        async with session(
            a_login(pg_server, database_url, "only_operator", "pgqueue_operator")
        ) as operator:
            await rows_of(operator, f"SELECT * FROM {call}", with_mail("a"))
            await rows_of(operator, f"SELECT * FROM {call}", with_mail("b"))
        assert (
            await value(connection, "SELECT count(*) FROM job_logs WHERE job_type = 'doors.mail'")
            == 2
        )

    async def test_the_role_that_is_set_counts(self, connection: Connection) -> None:
        """Also for a superuser who has taken a producer's role."""
        await rows_of(connection, "SELECT * FROM enqueue_job('doors.mail', '{}')")
        await rows_of(connection, "SET ROLE pgqueue_producer")
        with pytest.raises(DENIED):
            await rows_of(connection, "SELECT * FROM enqueue_job('doors.mail', '{}')")
        await rows_of(connection, "SET ROLE pgqueue_operator")
        await rows_of(connection, "SELECT * FROM enqueue_job('doors.mail', '{}')")

    async def test_a_client_says_so(self, pg_server: Server, database_url: str) -> None:
        url = a_login(pg_server, database_url, "only_producer", "pgqueue_producer")
        async with AsyncClient.open(Settings(database_url=url)) as client:
            with pytest.raises(InvalidJob, match="for administrators"):
                await client.enqueue("doors.mail", {})
            shared = [client.enqueue("doors.mail", {}) for _ in range(3)]
            assert all(
                isinstance(error, InvalidJob)
                for error in await asyncio.gather(*shared, return_exceptions=True)
            )

    @pytest.mark.parametrize(
        "statement", ["SELECT * FROM replay_job('a')", "SELECT pgqueue_is_admin()"]
    )
    async def test_a_producer_has_no_other_way(
        self, shop: Connection, statement: LiteralString
    ) -> None:
        with pytest.raises(DENIED):
            await rows_of(shop, statement)

    async def test_a_worker_cannot_open_a_type_by_publishing_it(
        self,
        connection: Connection,
        settings: Settings,
        worker_url: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async with session(worker_url) as worker:
            await publish(worker, declarations([mail_for_all, limited], settings))
            assert await value(
                connection, "SELECT admin FROM job_types WHERE job_type = 'doors.mail'"
            )
            assert "doors.mail stays for administrators" in caplog.text
            for statement in (
                "UPDATE job_types SET job_type = 'other' WHERE admin",
                "DELETE FROM job_types",
                "ALTER TABLE job_types DISABLE TRIGGER ALL",
            ):
                with pytest.raises(DENIED):
                    await worker.execute(statement.encode())
            await worker.execute("UPDATE job_types SET admin = false")
        assert await value(connection, "SELECT admin FROM job_types WHERE job_type = 'doors.mail'")

    async def test_a_worker_can_close_one_and_the_owner_or_an_operator_open_it(
        self,
        pg_server: Server,
        connection: Connection,
        database_url: str,
        settings: Settings,
        worker_url: str,
    ) -> None:
        await publish(connection, declarations([mail_for_all], settings))
        assert not await value(
            connection, "SELECT admin FROM job_types WHERE job_type = 'doors.mail'"
        )
        async with session(worker_url) as worker:
            await publish(worker, declarations([mail], settings))
        assert await value(connection, "SELECT admin FROM job_types WHERE job_type = 'doors.mail'")
        async with session(
            a_login(pg_server, database_url, "only_operator", "pgqueue_operator")
        ) as operator:
            await publish(operator, declarations([mail_for_all], settings))
        assert not await value(
            connection, "SELECT admin FROM job_types WHERE job_type = 'doors.mail'"
        )


class TestSchemaOfOthers:
    """What others create beside our tables can be taken for the server's own."""

    @pytest.mark.parametrize("grantee", ["PUBLIC", "only_shop"])
    async def test_it_is_told_and_roles_sql_refuses(
        self, pg_server: Server, database_url: str, grantee: LiteralString
    ) -> None:
        a_login(pg_server, database_url, "only_shop", "pgqueue_producer")
        async with session(database_url) as owner:
            assert await others_may_create(owner) is None
            await rows_of(owner, f"GRANT CREATE ON SCHEMA public TO {grantee}")
            warning = await others_may_create(owner)
            assert warning
            assert f"REVOKE CREATE ON SCHEMA public FROM {grantee}" in warning
            with pytest.raises(
                psycopg.errors.RaiseException,
                match=f"others may create in the schema of pgqueue: {grantee}",
            ):
                await owner.execute(ROLES.encode())
            await owner.execute("ROLLBACK")
            await rows_of(owner, "SET pgqueue.others_may_create = on")
            await owner.execute(ROLES.encode())
            await rows_of(owner, "RESET pgqueue.others_may_create")
            await rows_of(owner, f"REVOKE CREATE ON SCHEMA public FROM {grantee}")
            await owner.execute(ROLES.encode())
            assert await others_may_create(owner) is None

    async def test_a_schema_that_belongs_to_one_of_them_too(
        self, pg_server: Server, database_url: str
    ) -> None:
        a_login(pg_server, database_url, "only_shop", "pgqueue_producer")
        async with session(database_url) as owner:
            await rows_of(owner, "ALTER SCHEMA public OWNER TO only_shop")
            assert "only_shop" in (await others_may_create(owner) or "")

    async def test_migrate_and_status_warn(self, database_url: str) -> None:
        async with session(database_url) as owner:
            await rows_of(owner, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        for command in ("migrate", "status"):
            done = await cli_for(database_url)(command)
            assert done.exit_code == 0
            assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in done.stderr
