"""The command line as processes: exit codes, terminals, pipes, signals, and `pgqueue dev`."""

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from tests.support.commands import clean_environment, cli_for, process
from tests.support.factories import a_job, a_type, sql, value
from tests.support.logins import url_for
from tests.support.scene import until

COMMANDS: list[tuple[str, ...]] = [
    ("status",),
    ("job", "one"),
    ("cancel", "one"),
    ("enqueue", "plain", "--payload", "{}"),
    ("dlq", "list"),
    ("dlq", "show", "one"),
    ("dlq", "retry", "one"),
    ("dlq", "delete", "one"),
    ("dlq", "export"),
    ("dlq", "errors"),
    ("queues",),
    ("pause", "default"),
    ("resume", "default"),
    ("workers",),
    ("stats",),
    ("prune",),
    ("check",),
    ("migrate",),
    ("migrate", "--plan"),
]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class TestExitCodes:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    async def test_2_without_a_database_named_and_3_without_one_there(
        self, command: tuple[str, ...]
    ) -> None:
        result = await cli_for("")(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "DATABASE_URL is not set" in result.stderr
        result = await cli_for("postgresql://nobody:verysecret@127.0.0.1:1/x")(*command)
        assert result.exit_code == 3
        assert "cannot reach the database" in result.stderr
        assert "verysecret" not in result.output

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"password": "verysecret"}, "the password was refused"),
            ({"dbname": "nosuch"}, "there is no such database"),
        ],
    )
    async def test_the_reason_is_said_in_words(
        self, database_url: str, wrong: dict[str, str], words: str
    ) -> None:
        url = make_conninfo(database_url, **wrong)
        for command in ("stats", "status", "migrate", "prune"):
            result = await cli_for(url)(command)
            assert result.exit_code == 3
            assert f"cannot reach the database: {words}. Is DATABASE_URL right" in result.stderr
            assert "verysecret" not in result.output

    async def test_they_are_those_of_the_process(self, database_url: str) -> None:
        for expected, url, command in (
            (0, database_url, ("check",)),
            (1, database_url, ("job", "nobody")),
            (2, None, ("stats",)),
            (2, database_url, ("dlq", "retry")),
            (3, "postgresql://127.0.0.1:1/x", ("queues",)),
        ):
            code, _, err = await process(*command, url=url)
            assert code == expected
            assert "Traceback" not in err

    async def test_2_for_settings_that_are_wrong_all_of_them_at_once(
        self, database_url: str
    ) -> None:
        code, _, err = await process(
            "stats", url=database_url, PGQUEUE_LEASE="soon", PGQUEUE_QUEUES="a:b"
        )
        assert code == 2
        assert "PGQUEUE_LEASE" in err
        assert "PGQUEUE_QUEUES" in err

    async def test_1_on_a_database_without_a_schema(self, empty_database_url: str) -> None:
        code, _, err = await process("queues", url=empty_database_url)
        assert (code, err) == (
            1,
            "pgqueue: the database has no schema of pgqueue: run pgqueue migrate\n",
        )

    async def test_2_for_a_role_that_may_not(
        self, database_url: str, connection: AsyncConnection[Any]
    ) -> None:
        name = f"poor_{os.getpid()}"
        await sql(connection, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        try:
            code, _, err = await process(
                "cancel", "one", url=re.sub("//[^@]*@", f"//{name}:x@", database_url)
            )
            assert code in (1, 2)
            code, _, err = await process(
                "job", "one", url=re.sub("//[^@]*@", f"//{name}:x@", database_url)
            )
            assert code == 2
            assert (
                "permission denied for table job_logs: connect as a role that may do this; "
                "sql/roles.sql says which"
            ) in err
        finally:
            await sql(connection, f"DROP ROLE {name}")

    async def test_an_argument_that_is_no_text_is_2(self, database_url: str) -> None:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "pgqueue.cli", "job", b"\xff"],
            env=clean_environment(url_for("job", database_url)),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr


def on_a_terminal(arguments: Sequence[str], url: str, answer: str | None = None) -> tuple[int, str]:
    """Runs pgqueue on a terminal of 80 columns; `answer` is typed when it asks. Exit code, and what
    was on the screen."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    env = clean_environment(url_for(arguments[0], url), TERM="xterm-256color")
    env.pop("COLUMNS", None)
    child = subprocess.Popen(
        [sys.executable, "-m", "pgqueue.cli", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=env,
    )
    os.close(its)
    seen = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([mine], [], [], 0.2)[0]:
            with suppress(OSError):
                if chunk := os.read(mine, 65536):
                    seen += chunk
                    if answer and b"[y/N]" in seen:
                        os.write(mine, f"{answer}\n".encode())
                        answer = None
                    continue
            break
    os.close(mine)
    return child.wait(10), seen.decode()


class TestTerminals:
    @pytest.fixture(autouse=True)
    async def jobs(self, connection: AsyncConnection[Any]) -> None:
        await a_type(connection, job_type="a.rather.long.job.type.with.many.words")
        for number in range(3):
            await a_job(
                connection,
                job_id=f"signin-user-{number}-1795454937134-8f6036d3-6e80-4651-9b77-7b2e7e81cc68",
                job_type="a.rather.long.job.type.with.many.words",
                status="dlq",
                error=(
                    "[bold]Connection[/bold] to mail.example.com timed out \x1b[5m after ten "
                    "seconds for the fifth time"
                ),
            )
        await a_job(connection)
        await sql(
            connection,
            """INSERT INTO job_workers (id, kind, host, pid, release, queues)
               VALUES ('a-host-with-a-long-name-12345-abcdef', 'worker', 'h', 1, '1.0.0',
                 '{"default": 50, "mails": 100}')""",
        )

    @pytest.mark.parametrize(
        "command",
        [
            c
            for c in COMMANDS
            if c[0] in ("status", "queues", "workers", "stats", "check")
            or c in (("dlq", "list"), ("dlq", "errors"))
        ],
        ids=" ".join,
    )
    async def test_tables_fit_80_columns_there_and_have_no_escapes_elsewhere(
        self, database_url: str, command: tuple[str, ...]
    ) -> None:
        (_, screen), (_, out, _) = await asyncio.gather(
            asyncio.to_thread(on_a_terminal, command, database_url),
            process(*command, url=database_url),
        )
        shown = ESCAPES.sub("", screen)
        assert "\x1b" not in shown
        if command[0] not in (
            "workers",
            "queues",
        ):  # those end with a hint on stderr, which the terminal breaks by itself
            assert (
                max(len(line) for line in shown.splitlines() if not line.startswith("pgqueue:"))
                <= 80
            )
        assert not set(out) & set("\x1b─│┃━")

    async def test_an_id_is_there_in_full_and_markup_is_text(self, database_url: str) -> None:
        _, screen = await asyncio.to_thread(on_a_terminal, ("dlq", "list"), database_url)
        assert "\x1b[5m" not in screen
        assert (
            "signin-user-0-1795454937134-8f6036d3-6e80-4651-9b77-7b2e7e81cc68"
            in ESCAPES.sub("", screen).splitlines()
        )
        assert "[bold]" in screen

    async def test_more_than_one_is_asked_about(
        self, database_url: str, connection: AsyncConnection[Any]
    ) -> None:
        dead = "SELECT count(*) FROM job_logs WHERE status = 'dlq'"
        code, screen = await asyncio.to_thread(
            on_a_terminal, ("dlq", "retry", "--all"), database_url, "n"
        )
        assert (code, await value(connection, dead)) == (1, 3)
        assert "send back 3 dead jobs? [y/N]" in screen
        code, _ = await asyncio.to_thread(
            on_a_terminal, ("dlq", "delete", "--all"), database_url, "n"
        )
        assert (code, await value(connection, dead)) == (1, 3)
        code, _ = await asyncio.to_thread(
            on_a_terminal, ("dlq", "retry", "--all", "--limit", "2"), database_url, "y"
        )
        assert (code, await value(connection, dead)) == (0, 1)
        code, screen = await asyncio.to_thread(
            on_a_terminal, ("dlq", "retry", "--all", "--yes"), database_url
        )
        assert (code, await value(connection, dead)) == (0, 0)
        assert "[y/N]" not in screen

    async def test_long_work_shows_a_bar(
        self, database_url: str, connection: AsyncConnection[Any], tmp_path: Path
    ) -> None:
        await a_job(
            connection,
            status="completed",
            created_at=timedelta(days=-9),
            processed_at=timedelta(days=-9),
        )
        for command in (("prune",), ("dlq", "export", "--output", str(tmp_path / "dead"))):
            _, screen = await asyncio.to_thread(on_a_terminal, command, database_url)
            assert "━" in screen


@asynccontextmanager
async def running(
    *arguments: str, url: str | None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgqueue.cli", *arguments),
        env=clean_environment(url and url_for(arguments[0], url), **environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    """Reads on to a line with that text in it; all that was read."""
    assert stream is not None
    seen = ""
    async with asyncio.timeout(60):
        while line := (await stream.readline()).decode():
            seen += line
            if text in line:
                return seen
    raise AssertionError(f"no {text!r} in:\n{seen}")


class TestWatch:
    @pytest.mark.parametrize("options", [(), ("--json",)])
    async def test_goes_on_until_ctrl_c(self, database_url: str, options: tuple[str, ...]) -> None:
        async with running(
            "stats", "--watch", "--every", "100ms", *options, url=database_url
        ) as watch:
            for _ in range(2):
                line = await line_with(watch.stdout, "enqueued")
                assert not options or json.loads(line)["enqueued"] == 0
            watch.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(watch.wait(), 20) == 0


class TestPipes:
    async def test_a_reader_that_has_seen_enough(
        self, database_url: str, connection: AsyncConnection[Any]
    ) -> None:
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 dead_at, error)
               SELECT 'j' || n, 'x', 'u', '{}', 'dlq', now(), now(), repeat('x', 500)
                FROM generate_series(1, 2000) n""",
        )
        command = f"'{sys.executable}' -m pgqueue.cli dlq export | head -n 1"
        shell = await asyncio.create_subprocess_shell(
            command,
            env=clean_environment(url_for("dlq", database_url)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await shell.communicate()
        assert json.loads(out)["status"] == "dlq"
        assert b"Traceback" not in err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == pid]


def gone(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return not state.strip() or state.startswith("Z")


class TestDev:
    @pytest.mark.parametrize(
        "embedded", [True, False], ids=["a Postgres of its own", "that of DATABASE_URL"]
    )
    async def test_the_whole_system_until_ctrl_c(
        self, empty_database_url: str, embedded: bool
    ) -> None:
        port = free_port()
        async with running(
            "dev", url=None if embedded else empty_database_url, PORT=str(port)
        ) as dev:
            said = await line_with(dev.stdout, "Ctrl-C stops all of it")
            base = f"http://127.0.0.1:{port}"
            assert f"API        {base}" in said
            assert "applying 0001_tables" in said
            assert ("Postgres   postgresql://" in said) is embedded
            body = json.loads(re.search(r"-d '(\{.*\})'", said)[1])
            ticket = await asyncio.to_thread(fetch, f"{base}/api/jobs/signin-notification", body)

            async def completed() -> bool:
                job = await asyncio.to_thread(fetch, f"{base}/api/jobs/{ticket['jobId']}")
                return bool(job["status"] == "completed")

            await until(completed)
            await asyncio.to_thread(fetch, f"{base}/api/admin/jobs/stats")  # open without a token
            children = children_of(dev.pid)
            assert len(children) >= 2
            dev.send_signal(signal.SIGINT)
            rest = (await dev.stdout.read()).decode() if dev.stdout else ""
            assert await dev.wait() == 0, rest
            assert rest.endswith("stopped\n")
            assert all(gone(child) for child in children)
            with pytest.raises(urllib.error.URLError):
                await asyncio.to_thread(fetch, base)

    async def test_a_child_that_ends_takes_the_rest_with_it(self, database_url: str) -> None:
        async with running(
            "dev", url=database_url, PORT=str(free_port()), PGQUEUE_APP="no.such:app"
        ) as dev:
            said = (await dev.stdout.read()).decode() if dev.stdout else ""
            assert await dev.wait() == 2
            assert "api ended with 2: stopping the rest" in said

    async def test_a_child_that_is_killed(self, database_url: str) -> None:
        async with running("dev", url=database_url, PORT=str(free_port())) as dev:
            await line_with(dev.stdout, "Ctrl-C stops all of it")
            children = children_of(dev.pid)
            os.kill(children[-1], signal.SIGKILL)
            assert await dev.wait() == 128 + signal.SIGKILL
            assert all(gone(child) for child in children)

    async def test_a_database_that_is_not_there_is_3(self) -> None:
        code, _, err = await process("dev", url="postgresql://127.0.0.1:1/x", PORT=str(free_port()))
        assert code == 3
        assert "cannot reach the database" in err

    async def test_a_port_that_is_taken_is_2(self, empty_database_url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            code, out, err = await process("dev", url=empty_database_url, PORT=str(port))
        assert (code, out) == (2, "")
        assert f"PORT {port}: Address already in use; set another PORT" in err
