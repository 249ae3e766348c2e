"""`pgqueue dlq`: list, show, retry, delete, export, errors."""

import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.support.commands import Cli, cli_for, document
from tests.support.factories import a_job, sql, the_job


@pytest.fixture
def cli(database_url: str) -> Cli:
    return cli_for(database_url)


@pytest.fixture(autouse=True)
async def dead(connection: AsyncConnection[Any]) -> None:
    """Four dead jobs, the oldest first: mail-1, mail-2 (timeouts), mail-3 (an address), other-1."""
    for hours, job_id, job_type, error in (
        (4, "mail-1", "mail", "Connection timed out after 10 s"),
        (3, "mail-2", "mail", "connection timed OUT after 12 s"),
        (2, "mail-3", "mail", "invalid address"),
        (1, "other-1", "other", "connection timed out"),
    ):
        await a_job(
            connection,
            job_id=job_id,
            job_type=job_type,
            user_id=f"user-{job_id[-1]}",
            status="dlq",
            error=error,
            dead_at=timedelta(hours=-hours),
            payload={"email": "somebody@example.com"},
        )
    await a_job(connection, job_id="alive")


async def in_status(connection: AsyncConnection[Any], status: str) -> list[str]:
    rows = await sql(
        connection,
        "SELECT job_id FROM job_logs WHERE status = %s ORDER BY run_after, job_id",
        [status],
    )
    return [row["job_id"] for row in rows]


FILTERS = [
    (["--type", "mail"], ["mail-3", "mail-2", "mail-1"]),
    (["--user", "user-1"], ["other-1", "mail-1"]),
    (["--error", "TIMED out"], ["other-1", "mail-2", "mail-1"]),
    (["--since", "150m"], ["other-1", "mail-3"]),
    (["--until", "150m"], ["mail-2", "mail-1"]),
    (["--type", "mail", "--error", "timed", "--since", "210m"], ["mail-2"]),
    (["--since", "2020-01-01"], ["other-1", "mail-3", "mail-2", "mail-1"]),
    (["--until", "2020-01-01T00:00Z"], []),
]


class TestList:
    @pytest.mark.parametrize(
        ("options", "expected"), [([], ["other-1", "mail-3", "mail-2", "mail-1"]), *FILTERS]
    )
    async def test_newest_first_under_filters(
        self, cli: Cli, options: list[str], expected: list[str]
    ) -> None:
        answer = document(await cli("dlq", "list", "--json", *options))
        assert [job["jobId"] for job in answer["jobs"]] == expected
        assert answer["count"] == answer["total"] == len(expected)

    async def test_a_limit_says_what_it_leaves_out(self, cli: Cli) -> None:
        result = await cli("dlq", "list", "--limit", "1")
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["job", "type", "dead", "tries", "error"]
        assert lines[1].split()[0] == "other-1"
        assert len(lines) == 2
        assert "1 of 4: --limit 4 shows more" in result.stderr

    async def test_pages_hold_together(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 dead_at, attempt_count)
               SELECT 'many-' || n, 'many', 'u', '{}', 'dlq', now(), now(), 5
                FROM generate_series(1, 1200) n""",
        )
        answer = document(await cli("dlq", "list", "--json", "--type", "many", "--limit", "1100"))
        assert len({job["jobId"] for job in answer["jobs"]}) == answer["count"] == 1100
        assert answer["total"] == 1200

    async def test_nothing(self, cli: Cli) -> None:
        assert (await cli("dlq", "list", "--type", "none")).stdout == "no dead jobs\n"

    async def test_a_time_that_is_none_is_2(self, cli: Cli) -> None:
        result = await cli("dlq", "list", "--since", "yesterday")
        assert result.exit_code == 2
        assert "neither a time" in result.stderr

    async def test_errors_are_grouped(self, cli: Cli) -> None:
        groups = document(await cli("dlq", "errors", "--json"))
        assert sum(group["count"] for group in groups) == 4
        assert {"fingerprint", "count", "first", "last", "sampleJobId", "jobTypes"} <= set(
            groups[0]
        )
        assert (await cli("dlq", "errors")).stdout.splitlines()[0].split()[0] == "jobs"


class TestShow:
    async def test_one(self, cli: Cli) -> None:
        assert document(await cli("dlq", "show", "mail-1", "--json"))["payload"] == {
            "email": "s***@example.com"
        }
        assert "somebody@example.com" in (await cli("dlq", "show", "mail-1", "--payload")).stdout

    async def test_one_that_is_not_dead_is_1(self, cli: Cli) -> None:
        for job_id, says in (("alive", "Job is enqueued, not dlq"), ("nobody", "Job not found")):
            result = await cli("dlq", "show", job_id)
            assert (result.exit_code, result.stdout) == (1, "")
            assert says in result.stderr


class TestRetry:
    async def test_one_by_its_id(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        result = await cli("dlq", "retry", "mail-3")
        assert (result.exit_code, result.stdout) == (0, "1 job sent back\n")
        job = await the_job(connection, "mail-3")
        assert (job["status"], job["attempt_count"]) == ("enqueued", 0)

    async def test_one_with_another_payload(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        await cli("dlq", "retry", "mail-3", "--payload", '{"email": "right@example.com"}')
        job = await the_job(connection, "mail-3")
        assert job["payload"] == {"email": "right@example.com"}
        assert job["history"][-1]["payload"] == {"email": "somebody@example.com"}

    async def test_one_that_was_cancelled(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await cli("cancel", "alive")
        assert (await cli("dlq", "retry", "alive")).exit_code == 0
        assert (await the_job(connection, "alive"))["status"] == "enqueued"

    @pytest.mark.parametrize(("options", "expected"), FILTERS)
    async def test_by_filter_longest_dead_first(
        self, cli: Cli, connection: AsyncConnection[Any], options: list[str], expected: list[str]
    ) -> None:
        await cli("cancel", "alive")
        answer = document(await cli("dlq", "retry", "--json", "--rate", "0.1", *options))
        assert answer == {
            "retried": len(expected),
            "matched": len(expected),
            "remaining": 0,
            "dryRun": False,
        }
        assert await in_status(connection, "enqueued") == expected[::-1]

    async def test_all_spread_over_time(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        result = await cli("dlq", "retry", "--all", "--rate", "0.5")
        assert result.stdout == "4 jobs sent back, 0.5 a second, the last in 6.0s\n"
        first, last = await the_job(connection, "mail-1"), await the_job(connection, "other-1")
        assert last["run_after"] - first["run_after"] > timedelta(seconds=5.9)

    async def test_a_limit_leaves_the_younger_ones(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        result = await cli("dlq", "retry", "--all", "--limit", "3")
        assert await in_status(connection, "dlq") == ["other-1"]
        assert "1 that matched are still dead" in result.stderr

    async def test_a_dry_run_changes_nothing(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        result = await cli("dlq", "retry", "--type", "mail", "--dry-run")
        assert result.stdout == "would send back 3 of 3 dead jobs\n"
        assert (
            document(await cli("dlq", "retry", "mail-1", "--dry-run", "--json"))["dryRun"] is True
        )
        assert len(await in_status(connection, "dlq")) == 4

    async def test_ids_that_are_not_dead_are_1(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        result = await cli("dlq", "retry", "mail-1", "alive", "nobody")
        assert (result.exit_code, result.stdout) == (1, "1 job sent back\n")
        assert "2 of the 3 jobs are not in the dead-letter queue" in result.stderr
        for job_id in ("alive", "nobody"):
            assert (await cli("dlq", "retry", job_id)).exit_code == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--all", "--type", "mail"],
            ["--all", "mail-1"],
            ["mail-1", "mail-2", "--payload", "{}"],
            ["--type", "mail", "--payload", "{}"],
            ["mail-1", "--payload", "{"],
            ["--all", "--rate", "0"],
            ["--all", "--limit", "0"],
        ],
    )
    async def test_wrong_usage_is_2_and_changes_nothing(
        self, cli: Cli, connection: AsyncConnection[Any], arguments: list[str]
    ) -> None:
        assert (await cli("dlq", "retry", *arguments)).exit_code == 2
        assert len(await in_status(connection, "dlq")) == 4


class TestDelete:
    async def test_by_id(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        result = await cli("dlq", "delete", "mail-1", "mail-2", "mail-1")
        assert (result.exit_code, result.stdout) == (0, "2 jobs deleted\n")
        assert await in_status(connection, "cancelled") == ["mail-1", "mail-2"]

    async def test_by_filter(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        assert document(await cli("dlq", "delete", "--type", "mail", "--json")) == {"deleted": 3}
        assert await in_status(connection, "dlq") == ["other-1"]

    async def test_what_is_not_dead_is_1(self, cli: Cli) -> None:
        result = await cli("dlq", "delete", "mail-1", "alive", "nobody")
        assert (result.exit_code, result.stdout) == (1, "1 jobs deleted\n")
        assert "Job is enqueued, not dlq: alive; Job not found: nobody" in result.stderr

    async def test_without_saying_which_is_2(self, cli: Cli) -> None:
        assert (await cli("dlq", "delete")).exit_code == 2


class TestExport:
    async def test_to_stdout_as_lines(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await sql(connection, "UPDATE job_logs SET error = 'refused: somebody@example.com'")
        result = await cli("dlq", "export", "--type", "mail", "--json")
        jobs = [json.loads(line) for line in result.stdout.splitlines()]
        assert [job["jobId"] for job in jobs] == ["mail-3", "mail-2", "mail-1"]
        assert jobs[0]["payload"] == {"email": "somebody@example.com"}
        assert jobs[0]["error"] == "refused: s***@example.com"

    async def test_to_a_file_of_ones_own(self, cli: Cli, tmp_path: Path) -> None:
        file = tmp_path / "dead.jsonl"
        result = await cli("dlq", "export", "--output", str(file))
        assert (result.exit_code, result.stdout) == (0, "")
        assert "4 jobs written" in result.stderr
        assert len(file.read_text().splitlines()) == 4
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    async def test_never_over_another_file(self, cli: Cli, tmp_path: Path) -> None:
        file = tmp_path / "dead.jsonl"
        file.write_text("precious")
        assert (await cli("dlq", "export", "--output", str(file))).exit_code == 2
        assert file.read_text() == "precious"
