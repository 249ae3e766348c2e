"""`pgqueue queues`, `pause`, `resume`, `workers`, `stats`, `check`, `prune`, `status` and
`migrate`."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.database.migrations import migrations
from tests.support.commands import Cli, cli_for, document
from tests.support.factories import a_job, sql, value


@pytest.fixture
def cli(database_url: str) -> Cli:
    return cli_for(database_url)


async def a_process(
    connection: AsyncConnection[Any],
    name: str,
    kind: str = "worker",
    digest: str = "aaa",
    ago: int = 0,
) -> None:
    await sql(
        connection,
        """INSERT INTO job_workers (id, kind, host, pid, release, queues, types, detail, seen_at)
           VALUES (%s, %s, 'somewhere', 42, '1.0.0', '{"default": 50}',
             jsonb_build_object('test.job', %s::text),
                   '{"running": 3}', now() - %s * interval '1 s')""",
        [name, kind, digest, ago],
    )


class TestSeeing:
    async def test_queues(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        assert (await cli("queues")).stdout == "no queues: nothing waits, and no worker is alive\n"
        assert document(await cli("queues", "--json")) == []
        await a_job(connection)
        await a_job(connection, queue="later", run_after=timedelta(hours=1))
        result = await cli("queues")
        headings = [
            "queue",
            "paused",
            "ready",
            "scheduled",
            "processing",
            "oldest",
            "workers",
            "slots",
        ]
        assert result.stdout.splitlines()[0].split() == headings
        assert "no worker serves default: start pgqueue worker --queue default:50" in result.stderr
        first, second = document(await cli("queues", "--json"))
        assert (first["queue"], first["ready"], first["workers"]) == ("default", 1, 0)
        assert (second["queue"], second["scheduled"]) == ("later", 1)
        assert first["oldestReadyS"] >= 0

    async def test_workers(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        assert (await cli("workers")).stdout == "no process is alive: start pgqueue worker\n"
        await a_process(connection, "w-1")
        await a_process(connection, "w-2", ago=500)
        lines = (await cli("workers")).stdout.splitlines()
        assert lines[1].split()[0] == "w-1"
        assert lines[1].endswith("3 running")
        assert lines[2].endswith("silent")
        first, second = document(await cli("workers", "--json"))
        assert (first["id"], first["alive"], second["alive"]) == ("w-1", True, False)

    async def test_stats(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await a_job(connection)
        await a_job(connection, status="dlq")
        answer = document(await cli("stats", "--json"))
        assert (answer["enqueued"], answer["ready"], answer["dlq"]) == (1, 1, 1)
        lines = dict(line.rsplit(maxsplit=1) for line in (await cli("stats")).stdout.splitlines())
        assert lines["dlq"] == "1"

    async def test_pause_and_resume(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await a_job(connection)
        result = await cli("pause", "default")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "queue default is paused; pgqueue resume default ends that\n"
        assert document(await cli("queues", "--json"))[0]["paused"] is True
        assert document(await cli("resume", "default", "--json")) == {
            "queue": "default",
            "paused": False,
        }
        assert await value(connection, "SELECT count(*) FROM job_queues") == 0

    async def test_a_queue_that_nobody_knows_is_paused_with_a_question(self, cli: Cli) -> None:
        result = await cli("pause", "defalut")
        assert result.exit_code == 0
        assert "is that its name?" in result.stderr


class TestCheck:
    async def test_all_is_well(self, cli: Cli) -> None:
        result = await cli("check", "--json")
        assert result.exit_code == 0
        answer = document(result)
        assert answer["ok"] is True
        names = [one["name"] for one in answer["checks"]]
        assert names == ["dead", "failures", "p99", "depth", "unserved", "disagreements"]
        assert [one["threshold"] for one in answer["checks"]] == [10, 5, 10, 1000, 0, 0]

    async def crossed(self, cli: Cli, *options: str) -> list[str]:
        result = await cli("check", "--json", *options)
        crossed = [one["name"] for one in document(result)["checks"] if one["crossed"]]
        assert result.exit_code == (1 if crossed else 0)
        return crossed

    async def test_each_threshold(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await a_process(connection, "w-1")
        for _ in range(10):
            await a_job(connection, status="dlq", dead_at=timedelta(hours=-1))
        assert await self.crossed(cli) == []
        await a_job(connection, status="dlq", dead_at=timedelta(hours=-1))
        assert await self.crossed(cli) == ["dead"]
        for number in range(19):
            await a_job(
                connection, status="completed", run_after=timedelta(seconds=-5 if number else -20)
            )
        assert await self.crossed(cli) == ["dead", "p99"]
        await a_job(connection, status="failed", run_after=timedelta(hours=1))
        assert await self.crossed(cli) == ["dead", "p99"]  # 5 % is not above 5 %
        await a_job(connection, status="dlq")
        assert await self.crossed(cli) == ["dead", "failures", "p99"]
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload)
               SELECT 'd' || n, 'x', 'u', '{}' FROM generate_series(1, 1001) n""",
        )
        assert await self.crossed(cli) == ["dead", "failures", "p99", "depth"]
        await sql(connection, "UPDATE job_workers SET seen_at = now() - interval '1 hour'")
        await a_process(connection, "api-1", "api", "aaa")
        await a_process(connection, "api-2", "api", "bbb")
        everything = ["dead", "failures", "p99", "depth", "unserved", "disagreements"]
        assert await self.crossed(cli) == everything
        loose = [
            "--dead",
            "99",
            "--failures",
            "50",
            "--p99",
            "99",
            "--depth",
            "5000",
            "--unserved",
            "5000",
            "--disagreements",
            "1",
        ]
        assert await self.crossed(cli, *loose) == []

    async def test_people_are_told_what_to_do(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        await a_job(connection)
        result = await cli("check")
        assert result.exit_code == 1
        (line,) = [line for line in result.stdout.splitlines() if "CROSSED" in line]
        assert line.split()[:4] == ["unserved", "1", "0", "CROSSED"]
        assert "start pgqueue worker" in line


class TestPrune:
    @pytest.fixture(autouse=True)
    async def old(self, connection: AsyncConnection[Any]) -> None:
        days = {"created_at": timedelta(days=-40), "processed_at": timedelta(days=-40)}
        await a_job(connection, job_id="done", status="completed", **days)
        await a_job(connection, job_id="dead", status="dlq", **days)
        await a_job(connection, job_id="fresh", status="completed")

    async def test_removes_what_is_past_its_time(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        result = await cli("prune", PGQUEUE_KEEP_DLQ="50d")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(
            "1 jobs removed (completed ones are kept for 7d, dead ones for 50d)"
        )
        assert document(await cli("prune", "--json")) == {"jobs": 1, "tombstones": 0, "expired": 0}
        assert await value(connection, "SELECT string_agg(job_id, ',') FROM job_logs") == "fresh"

    async def test_archives_first(self, cli: Cli, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "archive"
        assert document(await cli("prune", "--archive", str(folder), "--json"))["jobs"] == 2
        rows = [
            json.loads(line)
            for file in folder.glob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        assert {row["job_id"] for row in rows} == {"done", "dead"}

    async def test_where_the_archive_cannot_be_is_2(
        self, cli: Cli, tmp_path: Path, connection: AsyncConnection[Any]
    ) -> None:
        (tmp_path / "file").write_text("")
        assert (await cli("prune", "--archive", str(tmp_path / "file" / "x"))).exit_code == 2
        assert await value(connection, "SELECT count(*) FROM job_logs") == 3


class TestStatus:
    async def test_tells_what_counts_and_no_secret(self, cli: Cli) -> None:
        secrets = {
            "PGQUEUE_ADMIN_TOKENS": "alpha-secret,beta-secret",
            "SENDGRID_API_KEY": "gamma-secret",
            "MAIL_TRANSPORT": "log",
        }
        for options in ((), ("--json",)):
            result = await cli("status", *options, **secrets)
            assert result.exit_code == 0
            assert "secret" not in result.stdout.replace("[secret]", "")
            assert "postgres:" not in result.stdout  # the URL, with its password
            assert "(2 set)" in result.stdout

    async def test_in_json(self, cli: Cli) -> None:
        answer = document(await cli("status", "--json"))
        assert answer["schemaVersion"] == answer["newestSchemaVersion"] == migrations()[-1].version
        assert answer["postgres"].split(".")[0].isdigit()
        assert (
            answer["mailTransport"],
            answer["doorbell"],
            answer["pooler"],
            answer["problem"],
        ) == ("log", "on", "none", None)
        assert {one["process"] for one in answer["processes"]} >= {"api", "worker"}
        assert {one["name"]: one["value"] for one in answer["settings"]}["PGQUEUE_LEASE"] == "30s"

    async def test_behind_a_pooler(self, cli: Cli) -> None:
        answer = document(await cli("status", "--json", PGQUEUE_PGBOUNCER="on"))
        assert answer["doorbell"].startswith("off: PGQUEUE_PGBOUNCER is on")
        assert "sql/roles.sql" in answer["pooler"]

    async def test_mail_that_could_not_be_sent(self, cli: Cli) -> None:
        result = await cli("status", SMTP_HOST="mail.example.com")
        assert "SMTP_HOST is set but MAIL_TRANSPORT is not" in result.stderr

    async def test_without_a_schema_is_1(self, empty_database_url: str) -> None:
        result = await cli_for(empty_database_url)("status", "--json")
        assert result.exit_code == 1
        answer = json.loads(result.stdout)
        assert answer["schemaVersion"] is None
        assert "run pgqueue migrate" in answer["problem"]

    async def test_without_a_database_shows_the_rest_and_is_3(self) -> None:
        result = await cli_for("postgresql://nobody:verysecret@127.0.0.1:1/none")("status")
        assert result.exit_code == 3
        assert "PGQUEUE_LEASE" in result.stdout
        assert "cannot reach the database" in result.stderr
        assert "verysecret" not in result.output


class TestMigrate:
    async def test_publishes_the_job_types(self, empty_database_url: str) -> None:
        cli = cli_for(empty_database_url)
        first = await cli("migrate", "--json")
        answer = json.loads(first.stdout)
        assert answer["applied"][0] == "0001_tables"
        assert "user.signin.notification" in answer["published"]
        assert "applying 0001_tables" in first.stderr
        again = await cli("migrate")
        assert again.stdout == "the schema is up to date\n"

    async def test_a_plan_in_json(self, empty_database_url: str) -> None:
        answer = document(await cli_for(empty_database_url)("migrate", "--plan", "--json"))
        assert answer["version"] == 0
        assert answer["pending"][0] == "0001_tables"
