"""The schema: forward only, safe twice and from two machines, careful with what it did not make."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pgqueue_service.notifications import legacy_import
from pgqueue_service.notifications.legacy_import import BullTable
from psycopg import AsyncConnection

from pgqueue.database import migrations as module
from pgqueue.database.migrations import (
    LOCK,
    applied,
    changed_functions,
    check_schema,
    functions,
    migrate,
    migrations,
    pending,
)
from pgqueue.errors import SchemaError
from pgqueue.masking import STACK_LENGTH
from pgqueue.settings import Settings
from tests.support.factories import sql, the_job, value
from tests.support.places import ROOT

pytestmark = pytest.mark.postgres(15, 18)

NEWEST = migrations()[-1].version
ALL = [one.label for one in (*migrations(), *functions())]
"""What a first migration applies, in order."""


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to a database that was never migrated."""
    async with await AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        yield connection


async def pgqueue(*arguments: str, url: str) -> tuple[int, str, str]:
    """Runs the command in a process of its own: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgqueue.cli", *arguments),
        env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder sql/ of a release that is still to come: a copy, for the test to change."""
    later = tmp_path / "sql"
    shutil.copytree(ROOT / "sql", later)
    monkeypatch.setattr(module, "files", lambda package: later / package.rpartition(".")[2])
    functions.cache_clear()
    yield later
    functions.cache_clear()


def a_migration(release: Path, statements: str, name: str = "later") -> int:
    """Adds one to the release; its version."""
    version = migrations()[-1].version + 1
    (release / "migrations" / f"{version:04d}_{name}.sql").write_text(statements)
    return version


def rewritten(release: Path, function: str, old: str, new: str) -> None:
    """Changes the file of a function."""
    functions.cache_clear()
    file = release / "functions" / f"{function}.sql"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def tables(connection: AsyncConnection[Any]) -> set[str]:
    return {
        row["relname"]
        for row in await sql(
            connection, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
    }


class TestForward:
    async def test_a_second_run_changes_nothing(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        first = await migrate(empty_database_url)
        ledger = await applied(empty)
        assert [one.label for one in first] == ALL
        assert [one.version for one in ledger] == list(range(1, NEWEST + 1))
        assert await migrate(empty_database_url) == []
        assert await applied(empty) == ledger
        await check_schema(empty)

    async def test_two_processes_at_once_do_it_once(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        results = await asyncio.gather(
            *(pgqueue("migrate", url=empty_database_url) for _ in range(3))
        )
        assert [code for code, _, _ in results] == [0, 0, 0], results
        said = "".join(out for _, out, _ in results)
        assert said.count("applying 0001_tables") == said.count("applying functions:") == 1
        assert said.count("the schema is up to date") == 2
        assert len(await applied(empty)) == NEWEST

    async def test_two_at_once_whatever_the_isolation(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await sql(
            empty,
            (
                f"ALTER DATABASE {empty.info.dbname} "
                "SET default_transaction_isolation = 'repeatable read'"
            ),
        )
        counts = await asyncio.gather(*(migrate(empty_database_url) for _ in range(2)))
        assert sorted(len(one) for one in counts) == [0, len(ALL)]

    async def test_it_goes_as_far_as_it_is_told_and_then_on(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        """Functions come last: they may need every table of the release."""
        later = a_migration(release, "CREATE TABLE job_later (n integer)")
        first = await migrate(empty_database_url, to=later - 1)
        assert [one.label for one in first] == [one.label for one in migrations()[:-1]]
        with pytest.raises(
            SchemaError,
            match=f"at version {later - 1}, this release needs {later}: run pgqueue migrate",
        ):
            await check_schema(empty)
        assert await migrate(empty_database_url, to=later - 1) == []
        then = [one.label for one in await migrate(empty_database_url)]
        assert then == [f"{later:04d}_later", *(one.label for one in functions())]
        await check_schema(empty)

    async def test_it_never_goes_back(self, empty_database_url: str, release: Path) -> None:
        later = a_migration(release, "CREATE TABLE job_later (n integer)")
        await migrate(empty_database_url)
        with pytest.raises(SchemaError, match="only go forward"):
            await migrate(empty_database_url, to=1)
        with pytest.raises(SchemaError, match=f"there is no version {later + 1}"):
            await migrate(empty_database_url, to=later + 1)

    async def test_a_plan_says_what_would_be_done_and_does_nothing(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        code, out, _ = await pgqueue("migrate", "--plan", url=empty_database_url)
        assert code == 0
        assert out.splitlines() == [
            "the database has no schema of pgqueue",
            *(f"would apply {label}" for label in ALL),
        ]
        assert not await tables(empty)
        await migrate(empty_database_url)
        code, out, _ = await pgqueue("migrate", "--plan", url=empty_database_url)
        assert (code, out) == (0, f"the schema is at version {NEWEST}\nnothing to do\n")

    async def test_functions_that_lend_rights_look_nowhere_else(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        lending = await sql(
            empty,
            (
                "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = "
                "'public'::regnamespace"
            ),
        )
        assert len(lending) == 12
        assert all("search_path=public, pg_temp" in function["proconfig"] for function in lending)

    async def test_a_schema_of_its_own(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        settings = Settings(database_url=f"{empty_database_url}?schema=jobs&connection_limit=5")
        with pytest.raises(SchemaError, match="CREATE SCHEMA first"):
            await migrate(settings.direct_conninfo)
        await sql(empty, "CREATE SCHEMA jobs")
        await migrate(settings.direct_conninfo)
        assert await value(empty, "SELECT count(*) FROM jobs.job_types") == 0
        assert not await tables(empty)
        # From then on it is found where it is, whatever comes first.
        await sql(empty, "CREATE SCHEMA before")
        assert await migrate(f"{empty_database_url}?options=-c%20search_path%3Dbefore%2Cjobs") == []


class TestFunctions:
    async def test_a_file_that_has_changed_is_applied_again_and_only_that_one(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        await migrate(empty_database_url)
        rewritten(release, "cancel_job", "'Job cancelled'", "'Cancelled it is'")
        assert [one.label for one in await pending(empty)] == ["functions/cancel_job"]
        steps: list[str] = []
        applied_now = await migrate(empty_database_url, told=steps.append)
        assert [one.label for one in applied_now] == ["functions/cancel_job"]
        assert steps == ["applying functions: cancel_job"]
        assert await migrate(empty_database_url) == []
        await sql(
            empty,
            "INSERT INTO job_logs (job_id, job_type, user_id, payload) "
            "VALUES ('j', 't', 'u', '{}')",
        )
        (answer,) = await sql(empty, "SELECT * FROM cancel_job('j')")
        assert answer["message"] == "Cancelled it is"

    async def test_rights_that_were_granted_stay_and_none_is_given(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        await migrate(empty_database_url)
        rights = """SELECT p.proname::text AS name, p.proacl::text AS acl FROM pg_proc p
                     WHERE p.pronamespace = 'public'::regnamespace ORDER BY 1"""
        await sql(empty, "GRANT EXECUTE ON FUNCTION cancel_job(text) TO pg_monitor")
        before = await sql(empty, rights)
        rewritten(release, "cancel_job", "'Job cancelled'", "'Cancelled it is'")
        assert await migrate(empty_database_url)
        assert await sql(empty, rights) == before

    async def test_a_process_of_a_release_whose_functions_are_missing_says_so(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        await migrate(empty_database_url)
        rewritten(release, "cancel_job", "'Job cancelled'", "'Cancelled it is'")
        with pytest.raises(
            SchemaError, match="an older version of 1 functions, such as cancel_job"
        ):
            await check_schema(empty)

    async def test_status_and_plan_name_what_differs(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        await sql(empty, "UPDATE job_functions SET checksum = 'old' WHERE name = 'replay_job'")
        code, out, _ = await pgqueue("migrate", "--plan", url=empty_database_url)
        assert (code, out.splitlines()[1:]) == (0, ["would apply functions/replay_job"])
        code, _, err = await pgqueue("status", url=empty_database_url)
        assert code == 1
        assert "an older version of 1 functions, such as replay_job: run pgqueue migrate" in err

    async def test_an_older_release_leaves_the_functions_of_a_later_one(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        """And goes on working with them: what a release replaces still serves the one before."""
        await migrate(empty_database_url)
        await sql(empty, "UPDATE job_functions SET checksum = 'newer', release = '999.10.0'")
        assert await migrate(empty_database_url) == []
        await check_schema(empty)
        await sql(empty, "UPDATE job_functions SET release = '0.9.10'")
        assert [one.name for one in await changed_functions(empty)] == [f.name for f in functions()]

    async def test_another_result_needs_a_migration_that_drops_the_old_function(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        await migrate(empty_database_url)
        rewritten(release, "pause_queue", "RETURNS void", "RETURNS boolean")
        rewritten(release, "pause_queue", "AND NOT pause_queue.paused;",
                  "AND NOT pause_queue.paused; SELECT true;")  # fmt: skip
        with pytest.raises(SchemaError, match=r"pause_queue .* no migration has dropped it"):
            await migrate(empty_database_url)
        a_migration(release, "DROP FUNCTION pause_queue(text, boolean)")
        steps = [one.label for one in await migrate(empty_database_url)]
        assert steps == [f"{NEWEST + 1:04d}_later", "functions/pause_queue"]
        assert await value(empty, "SELECT pause_queue('default', true)") is True

    async def test_other_parameters_need_one_too(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        """Else the old function would stay, and calls would be ambiguous."""
        await migrate(empty_database_url)
        rewritten(release, "cancel_job", "(job_id text)", "(job_id varchar)")
        rewritten(release, "cancel_job", "cancel_job(text)", "cancel_job(varchar)")
        with pytest.raises(SchemaError, match=r"another cancel_job with other parameters"):
            await migrate(empty_database_url)
        a_migration(release, "DROP FUNCTION cancel_job(text)")
        assert [one.label for one in await migrate(empty_database_url)][1:] == [
            "functions/cancel_job"
        ]
        assert (await sql(empty, "SELECT * FROM cancel_job('x')"))[0]["message"] == "Job not found"

    async def test_a_migration_that_fails_leaves_the_functions_as_they_were(
        self, empty: AsyncConnection[Any], empty_database_url: str, release: Path
    ) -> None:
        await migrate(empty_database_url)
        had = await sql(empty, "SELECT * FROM job_functions ORDER BY name")
        rewritten(release, "cancel_job", "'Job cancelled'", "'Cancelled it is'")
        a_migration(release, "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await migrate(empty_database_url)
        assert await sql(empty, "SELECT * FROM job_functions ORDER BY name") == had


class TestRefusals:
    async def test_a_migration_that_was_changed_after_it_was_applied(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        await sql(empty, "UPDATE job_migrations SET checksum = 'another' WHERE version = 1")
        with pytest.raises(SchemaError, match=r"0001_tables .* changed after it was applied"):
            await migrate(empty_database_url)
        with pytest.raises(SchemaError):
            await pending(empty)

    async def test_a_schema_above_this_release(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        await sql(
            empty,
            (
                "INSERT INTO job_migrations (version, name, checksum, min_release) VALUES (900, "
                "'later', 'x', 1)"
            ),
        )
        await check_schema(empty)  # a later schema that still serves this release
        await sql(empty, "UPDATE job_migrations SET min_release = 99 WHERE version = 900")
        with pytest.raises(SchemaError, match="needs release 99 of pgqueue"):
            await check_schema(empty)
        code, _, err = await pgqueue("queues", url=empty_database_url)
        assert code == 1
        assert "update pgqueue" in err

    @pytest.mark.parametrize("options", [[], ["--plan"], ["--to", str(NEWEST)]])
    async def test_a_schema_above_this_release_is_not_migrated_by_it(
        self, empty: AsyncConnection[Any], empty_database_url: str, options: list[str]
    ) -> None:
        """Nor are its types published: they may mean something else there."""
        await migrate(empty_database_url)
        await sql(empty, "UPDATE job_functions SET checksum = 'another'")
        await sql(empty, "UPDATE job_migrations SET min_release = 99")
        code, out, err = await pgqueue("migrate", *options, url=empty_database_url)
        assert (code, out) == (1, "")
        assert "the schema needs release 99 of pgqueue and this is 1: update pgqueue" in err
        assert (
            await value(empty, "SELECT count(*) FROM job_functions WHERE checksum <> 'another'")
            == 0
        )
        assert await value(empty, "SELECT count(*) FROM job_types") == 0

    async def test_a_database_without_a_schema(self, empty: AsyncConnection[Any]) -> None:
        with pytest.raises(SchemaError, match="run pgqueue migrate"):
            await check_schema(empty)

    async def test_another_process_migrates_for_long(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await sql(empty, "SELECT pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(
            SchemaError, match="another process is migrating this database; nothing was changed"
        ):
            await migrate(empty_database_url, lock_timeout="200ms")
        assert not await tables(empty)
        await sql(empty, "SELECT pg_advisory_unlock(%s)", [LOCK])
        assert await migrate(empty_database_url)

    async def test_a_table_that_is_in_use(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url)
        async with empty.transaction():
            await sql(empty, "LOCK TABLE job_migrations")
            with pytest.raises(SchemaError, match="in use; nothing was changed"):
                async with asyncio.timeout(5):
                    await migrate(empty_database_url, lock_timeout="200ms")
        assert len(await applied(empty)) == NEWEST


OLD_SERVICE = """
CREATE TABLE job_logs (
    id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    job_id varchar(255) NOT NULL,
    job_type varchar(100) NOT NULL,
    user_id varchar(255),
    status varchar(20) NOT NULL DEFAULT 'enqueued',
    payload jsonb NOT NULL,
    error text,
    stack_trace text,
    attempt_count integer DEFAULT 0,
    created_at timestamp without time zone DEFAULT now(),
    processed_at timestamp without time zone,
    CONSTRAINT unique_job_id UNIQUE (job_id)
);
CREATE INDEX job_logs_user ON job_logs (user_id);
CREATE INDEX idx_job_logs_status ON job_logs (status);
INSERT INTO job_logs (id, job_id, job_type, user_id, status, payload, error, attempt_count,
  created_at, processed_at) VALUES
    ('11111111-1111-4111-8111-111111111111', 'done', 'user.signin.notification', 'u1',
     'completed', '{"userId": "u1"}', NULL, 1, '2026-03-01 12:00:00.5', '2026-03-01 12:00:01'),
    ('22222222-2222-4222-8222-222222222222', 'dead', 'user.signin.notification', NULL,
     'dlq', '{}', 'boom', 5, '2026-03-01 12:00:00', NULL),
    ('33333333-3333-4333-8333-333333333333', 'waiting', 'user.signin.notification', 'u1',
     'enqueued', '{}', NULL, 0, '2026-03-01 12:00:00', NULL);
"""
"""As the old service's own SQL made it."""

PRISMA = """
CREATE TYPE "JobStatus" AS ENUM ('enqueued', 'processing', 'completed', 'failed', 'dlq');
CREATE TABLE job_logs (
    id text NOT NULL,
    job_id text NOT NULL,
    job_type text NOT NULL,
    user_id text NOT NULL,
    status "JobStatus" NOT NULL DEFAULT 'enqueued',
    payload {json} NOT NULL,
    error text,
    "stack_trace" text,
    attempt_count integer NOT NULL DEFAULT 0,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at timestamp(3),
    CONSTRAINT job_logs_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX unique_job_id ON job_logs (job_id);
CREATE INDEX job_logs_claim ON job_logs (status);
CREATE INDEX "job_logs_dead" ON job_logs (created_at);
INSERT INTO job_logs (id, job_id, job_type, user_id, status, payload, error, attempt_count,
  created_at, processed_at) VALUES
    ('11111111-1111-4111-8111-111111111111', 'done', 'user.signin.notification', 'u1',
     'completed', '{{"userId": "u1"}}', NULL, 1, '2026-03-01 12:00:00.5', '2026-03-01 12:00:01'),
    ('clx0000000000000000000000', 'dead', 'user.signin.notification', 'u1',
     'dlq', '{{}}', 'boom', 5, '2026-03-01 12:00:00', '2026-03-01 12:01:00'),
    ('33333333-3333-4333-8333-333333333333', 'waiting', 'user.signin.notification', 'u1',
     'failed', '{{}}', NULL, 2, '2026-03-01 12:00:00', NULL);
"""
"""As Prisma makes it: text ids, an enum, timestamp(3); its index names are ours."""

SHAPES = {
    "its own SQL": OLD_SERVICE,
    "Prisma, jsonb": PRISMA.format(json="jsonb"),
    "Prisma, json": PRISMA.format(json="json"),
}


class TestTheOldServicesTable:
    @pytest.fixture(params=SHAPES)
    async def old(
        self, empty: AsyncConnection[Any], request: pytest.FixtureRequest
    ) -> AsyncConnection[Any]:
        await empty.execute(SHAPES[request.param].encode())
        return empty

    async def test_is_refused_unchanged_and_it_is_said_what_to_do(
        self, old: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        before = await tables(old)
        code, _, err = await pgqueue("migrate", url=empty_database_url)
        assert code == 1
        assert "nothing was changed" in err
        assert "pgqueue migrate --adopt" in err
        assert await tables(old) == before
        assert await value(old, "SELECT count(*) FROM job_logs") == 3

    async def test_is_adopted_times_as_utc_and_ids_kept(
        self, old: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await sql(old, f"ALTER DATABASE {old.info.dbname} SET timezone = 'Asia/Ulaanbaatar'")
        code, out, err = await pgqueue("migrate", "--adopt", url=empty_database_url)
        assert code == 0, err
        assert (
            "copied 2 jobs that had ended; 1 that were waiting or running stay in job_logs_bull "
            "only"
        ) in out
        done, dead = await the_job(old, "done"), await the_job(old, "dead")
        assert done["id"] == UUID("11111111-1111-4111-8111-111111111111")
        assert done["created_at"] == datetime(2026, 3, 1, 12, 0, 0, 500_000, UTC)
        assert done["processed_at"] == datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
        assert (done["status"], done["payload"], done["attempt_count"]) == (
            "completed",
            {"userId": "u1"},
            1,
        )
        assert (dead["status"], dead["error"], dead["dead_at"]) == (
            "dlq",
            "boom",
            dead["processed_at"],
        )
        assert await value(old, "SELECT count(*) FROM job_logs_bull") == 3
        await check_schema(old)

    async def test_addresses_leave_what_went_wrong(
        self, old: AsyncConnection[Any], empty_database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In batches, whatever the order of the ids."""
        monkeypatch.setattr(legacy_import, "BATCH", 2)
        await sql(old, "UPDATE job_logs SET stack_trace = 'at line 1' WHERE job_id = 'done'")
        await sql(
            old,
            """INSERT INTO job_logs (id, job_id, job_type, user_id, status, payload, error,
                 stack_trace)
               SELECT gen_random_uuid(), 'more-' || n, 't', 'u', 'dlq', '{}',
                 '550 <someone@example.com>: no such user',
                      CASE WHEN n < 6 THEN repeat('x', 9000) || ' someone@example.com password=abc'
                        END
                 FROM generate_series(1, 7) n""",
        )
        await migrate(empty_database_url, adopt=BullTable())
        rows = await sql(
            old,
            "SELECT error, stack_trace FROM job_logs WHERE job_id LIKE 'more-%' ORDER BY job_id",
        )
        assert [row["error"] for row in rows] == ["550 <s***@example.com>: no such user"] * 7
        assert [len(row["stack_trace"] or "") for row in rows] == [STACK_LENGTH] * 5 + [0] * 2
        assert all(
            row["stack_trace"].endswith("x s***@example.com password=***") for row in rows[:5]
        )
        assert (await the_job(old, "done"))["stack_trace"] == "at line 1"

    async def test_its_ids_stay_known(
        self, old: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url, adopt=BullTable())
        await sql(old, "INSERT INTO job_types (job_type) VALUES ('user.signin.notification')")
        row = await sql(
            old,
            (
                "SELECT * FROM enqueue_job('user.signin.notification', '{\"userId\": \"u1\"}', "
                "job_id => 'done', user_id => 'u1')"
            ),
        )
        assert row == [
            {"job_id": "done", "status": "completed", "created": False, "retry_after": None}
        ]
        assert (await sql(old, "SELECT * FROM replay_job('dead')"))[0]["changed"]

    async def test_a_second_adoption_brings_nothing_back(
        self, old: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await migrate(empty_database_url, adopt=BullTable())
        await sql(old, "DELETE FROM job_logs WHERE job_id = 'done'")  # retention
        assert await migrate(empty_database_url, adopt=BullTable()) == []
        assert await value(old, "SELECT count(*) FROM job_logs") == 1

    async def test_in_use_is_left_alone(
        self, old: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        async with await AsyncConnection.connect(empty_database_url) as service:
            await sql(service, "UPDATE job_logs SET attempt_count = attempt_count")
            with pytest.raises(SchemaError, match="Stop the old service"):
                await migrate(empty_database_url, adopt=BullTable(), lock_timeout="200ms")
        assert await value(old, "SELECT count(*) FROM job_logs") == 3

    async def test_a_plan_of_it(self, old: AsyncConnection[Any], empty_database_url: str) -> None:
        code, out, _ = await pgqueue("migrate", "--plan", "--adopt", url=empty_database_url)
        assert code == 0
        assert out.splitlines()[1] == "would rename job_logs to job_logs_bull"
        assert "job_logs_bull" not in await tables(old)


class TestStrangers:
    async def test_rows_that_cannot_be_copied_stay_behind(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await empty.execute(PRISMA.format(json="json").encode())
        await sql(
            empty, "UPDATE job_logs SET payload = '{\"x\": \"\\u0000\"}' WHERE job_id = 'done'"
        )
        steps: list[str] = []
        await migrate(empty_database_url, adopt=BullTable(), told=steps.append)
        assert "copied 1 jobs that had ended; 2 that" in steps[-1]

    async def test_a_table_of_another_kind_is_not_adopted(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await sql(empty, "CREATE TABLE job_logs (id serial, message text)")
        code, _, err = await pgqueue("migrate", "--adopt", url=empty_database_url)
        assert code == 1
        assert "it lacks attempt_count, created_at" in err
        assert {
            row["attname"]
            for row in await sql(
                empty,
                (
                    "SELECT attname FROM pg_attribute WHERE attrelid = 'job_logs'::regclass AND "
                    "attnum > 0"
                ),
            )
        } == {
            "id",
            "message",
        }

    async def test_adopt_without_anything_to_adopt_just_migrates(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        assert [one.label for one in await migrate(empty_database_url, adopt=BullTable())] == ALL

    async def test_a_failing_step_leaves_nothing_behind(
        self, empty: AsyncConnection[Any], empty_database_url: str
    ) -> None:
        await sql(empty, "CREATE TYPE job_ticket AS (x integer)")  # in the way of 0001
        before = await tables(empty)
        with pytest.raises(psycopg.errors.DuplicateObject):
            await migrate(empty_database_url)
        assert await tables(empty) == before
