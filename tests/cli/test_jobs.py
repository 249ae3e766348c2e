"""`pgqueue enqueue`, `job` and `cancel`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.support.commands import Cli, cli_for, document
from tests.support.factories import a_job, a_type, sql, the_job, value


@pytest.fixture
def cli(database_url: str) -> Cli:
    return cli_for(database_url)


@pytest.fixture(autouse=True)
async def types(connection: AsyncConnection[Any]) -> None:
    await a_type(connection, job_type="plain")
    await a_type(
        connection, job_type="limited", limit_count=1, limit_window="1 h", user_from="userId"
    )


class TestEnqueue:
    async def test_stores_a_job_and_says_its_id(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        result = await cli("enqueue", "plain", "--payload", '{"x": 1}', "--job-id", "one")
        assert (result.exit_code, result.stdout) == (0, "Job one enqueued\n")
        assert (await the_job(connection, "one"))["payload"] == {"x": 1}

    async def test_every_option_counts(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        options = [
            "--in",
            "10m",
            "--user-id",
            "u1",
            "--queue",
            "q",
            "--priority",
            "2",
            "--max-attempts",
            "3",
            "--json",
        ]
        answer = document(await cli("enqueue", "plain", "--payload", "{}", *options))
        job = await the_job(connection, answer["jobId"])
        assert answer == {"jobId": job["job_id"], "status": "enqueued", "created": True}
        assert (job["user_id"], job["queue"], job["priority"], job["max_attempts"]) == (
            "u1",
            "q",
            2,
            3,
        )
        assert timedelta(minutes=9) < job["run_after"] - job["created_at"] <= timedelta(minutes=10)

    async def test_the_payload_may_come_from_stdin_or_a_file_and_stays_as_written(
        self, cli: Cli, connection: AsyncConnection[Any], tmp_path: Path
    ) -> None:
        (tmp_path / "payload.json").write_text('{"price": 1.10}')
        await cli("enqueue", "plain", "--payload", "-", "--job-id", "in", stdin='{"price": 1.10}')
        await cli(
            "enqueue", "plain", "--payload", f"@{tmp_path / 'payload.json'}", "--job-id", "file"
        )
        texts = await sql(connection, "SELECT payload::text AS text FROM job_logs")
        assert [row["text"] for row in texts] == ['{"price": 1.10}'] * 2

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--payload", "{"], "write it in single quotes"),
            (["--payload", "@/nowhere/at/all"], "cannot be read"),
            (["--payload", "{}", "--in", "soon"], "not a duration"),
            (["--payload", "{}", "--priority", "11"], "0<=x<=9"),
            ([], "--payload"),
        ],
    )
    async def test_wrong_usage_is_2(self, cli: Cli, arguments: list[str], says: str) -> None:
        result = await cli("enqueue", "plain", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert says in result.stderr

    async def test_a_refusal_is_1(self, cli: Cli) -> None:
        await cli("enqueue", "limited", "--payload", '{"userId": "u1"}', "--job-id", "one")
        for arguments, says in (
            (["limited", "--payload", '{"userId": "u1"}'], "try again in 3"),
            (
                ["limited", "--payload", '{"userId": "u2"}', "--job-id", "one"],
                "Job ID already used with another payload: one",
            ),
            (["limited", "--payload", "{}"], "needs a user_id"),
            (["nobodys", "--payload", "{}"], "and by pgqueue migrate for PGQUEUE_MODULES\n"),
            (["plian", "--payload", "{}"], "PGQUEUE_MODULES: did you mean plain?\n"),
            (["plain", "--payload", '{"x": "\\u0000"}'], "NUL"),
        ):
            result = await cli("enqueue", *arguments)
            assert (result.exit_code, result.stdout) == (1, ""), arguments
            assert says in result.stderr

    async def test_the_same_job_again_is_no_error_while_it_lives(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        arguments = ("enqueue", "plain", "--payload", "{}", "--job-id", "one")
        await cli(*arguments)
        again = await cli(*arguments)
        assert (again.exit_code, again.stdout) == (0, "Job one existed before: enqueued\n")
        assert await value(connection, "SELECT count(*) FROM job_logs") == 1
        await cli("cancel", "one")
        ended = await cli(*arguments, "--json")
        assert document(ended) == {"jobId": "one", "status": "cancelled", "created": False}
        assert ended.exit_code == 1
        assert "pgqueue dlq retry one" in ended.stderr


HISTORY = [
    {
        "attempt": 1,
        "at": "2026-11-23T10:00:05+00:00",
        "worker": "w-1",
        "error": "timed out at somebody@example.com",
        "stack": "... somebody@example.com",
    },
    {
        "event": "replayed",
        "at": "2026-11-23T11:00:00+00:00",
        "was": "dlq",
        "error": "x",
        "payload": {"email": "old@example.com"},
    },
    {"event": "no handler", "at": "2026-11-23T11:00:01+00:00", "times": 3, "worker": "w-2"},
    {"event": "moved", "at": "2026-11-23T11:00:02+00:00", "to": "elsewhere"},
]


class TestJob:
    @pytest.fixture
    async def dead(self, connection: AsyncConnection[Any]) -> dict[str, Any]:
        return await a_job(
            connection,
            job_id="dead-1",
            status="dlq",
            payload={"email": "somebody@example.com", "name": "S\x1b[31m"},
            error="went \x1b]0;wrong with somebody@example.com",
            stack_trace="Traceback:\n  line\x07 of somebody@example.com",
            locked_by="w-3",
            history=HISTORY,
            created_at=timedelta(days=-900),
        )

    async def test_tells_what_happened_in_order(self, cli: Cli, dead: dict[str, Any]) -> None:
        result = await cli("job", "dead-1")
        assert result.exit_code == 0
        timeline = [
            line.strip()[22:]
            for line in result.stdout.split("Timeline (UTC)\n")[1].split("\n\n")[0].splitlines()
        ]
        assert timeline == [
            "enqueued into default, priority 5",
            "attempt 1 failed on w-1: timed out at s***@example.com",
            "replayed (was dlq), with another payload",
            "put back 3 times since: w-2 had no handler for its type",
            "moved: to elsewhere",
            "attempt 5/5 claimed by w-3",
            "moved to the dead-letter queue",
        ]

    async def test_shows_no_whole_address_and_no_control_character(
        self, cli: Cli, dead: dict[str, Any]
    ) -> None:
        for command in (("job", "dead-1"), ("dlq", "show", "dead-1"), ("dlq", "list")):
            for options in ((), ("--json",)):
                printed = (await cli(*command, *options)).stdout
                assert "dead-1" in printed
                assert "somebody@" not in printed
                assert "old@" not in printed
                assert not set(printed) & {"\x1b", "\x07", "\r"}
        assert "\\x1b]0;wrong" in (await cli("job", "dead-1")).stdout

    async def test_shows_the_payload_when_asked(self, cli: Cli, dead: dict[str, Any]) -> None:
        assert "somebody@example.com" in (await cli("job", "dead-1", "--payload")).stdout
        answer = document(await cli("job", "dead-1", "--payload", "--json"))
        assert answer["payload"] == dead["payload"]
        assert answer["history"][1]["payload"] == {"email": "old@example.com"}
        assert "somebody" not in str([answer["error"], answer["stackTrace"], answer["history"]])
        assert (answer["jobId"], answer["status"], answer["attemptCount"]) == ("dead-1", "dlq", 5)
        assert answer["createdAt"].endswith("Z")
        assert len(answer["createdAt"]) == len("2026-11-23T10:00:00.000Z")

    async def test_says_when_a_waiting_job_is_due(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        await a_job(connection, job_id="later", run_after=timedelta(hours=1))
        assert (await cli("job", "later")).stdout.split("\n\nPayload")[0].endswith("due")

    async def test_says_what_a_job_waits_for(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        await a_type(connection, job_type="mailing", depends_on="mail")
        await a_job(
            connection, job_id="j", job_type="mailing", queue="a b", run_after=timedelta(hours=1)
        )
        await sql(connection, "INSERT INTO job_queues (queue, paused) VALUES ('a b', true)")
        await sql(
            connection,
            """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause,
                 reason)
               VALUES ('mail', 'open', now(), now() + interval '1 hour', interval '1 hour',
                 'no mailbox ana.maria@example.com')""",
        )
        first, second, third = document(await cli("job", "j", "--json"))["waitsFor"]
        assert first.startswith("its time: ")
        assert second == "its queue, which is paused: pgqueue resume 'a b' ends that"
        assert third.startswith("mail, which is down for ")
        assert third.endswith(": no mailbox a***@example.com")
        await sql(connection, "UPDATE job_queues SET paused = false")
        await sql(connection, "DELETE FROM job_dependencies")
        await sql(connection, "UPDATE job_logs SET run_after = now()")
        assert (
            "a worker: none serves the queue a b; start pgqueue worker --queue 'a b:50'"
            in (await cli("job", "j")).stdout
        )
        await sql(connection, "UPDATE job_logs SET status = 'cancelled', processed_at = now()")
        assert document(await cli("job", "j", "--json"))["waitsFor"] == []

    async def test_shows_what_a_completed_job_has_to_show(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        receipt = "smtp 250 2.0.0 Ok: queued as 4XYZ"
        await a_job(connection, job_id="sent", status="completed", receipt=receipt)
        await a_job(connection, job_id="done", status="completed")
        assert ["receipt", receipt] in [
            line.split(maxsplit=1) for line in (await cli("job", "sent")).stdout.splitlines()
        ]
        assert document(await cli("job", "sent", "--json"))["receipt"] == receipt
        assert "receipt" not in (await cli("job", "done")).stdout

    async def test_a_job_that_is_not_there_is_1(self, cli: Cli) -> None:
        result = await cli("job", "nobody\x1b[2J", "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Job not found: nobody\\x1b[2J" in result.stderr


class TestCancel:
    async def test_ends_a_job(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await a_job(connection, job_id="one")
        result = await cli("cancel", "one")
        assert (result.exit_code, result.stdout) == (0, "Job one cancelled\n")
        assert (await the_job(connection, "one"))["status"] == "cancelled"

    async def test_in_json(self, cli: Cli, connection: AsyncConnection[Any]) -> None:
        await a_job(connection, job_id="one", status="processing")
        assert document(await cli("cancel", "one", "--json")) == {
            "jobId": "one",
            "status": "cancelled",
        }

    async def test_what_has_ended_or_is_not_there_is_1(
        self, cli: Cli, connection: AsyncConnection[Any]
    ) -> None:
        await a_job(connection, job_id="done", status="completed")
        for job_id, says in (
            ("done", "Job is completed, not waiting or running: done"),
            ("nobody", "Job not found: nobody"),
        ):
            result = await cli("cancel", job_id)
            assert (result.exit_code, result.stdout) == (1, "")
            assert says in result.stderr
