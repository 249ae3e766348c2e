"""How the programs start: closed streams, a working directory full of traps, words that are almost
right."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from pgqueue.cli import COMMANDS, main
from pgqueue.printable import shell_argument, shell_word
from tests.support.commands import clean_environment
from tests.support.factories import a_type, sql, value
from tests.support.logins import url_for
from tests.support.scene import until


def environment(kind: str, url: str, **more: str) -> dict[str, str]:
    # Without what the tests listen with, which would put a file of theirs in place of a closed
    # stream.
    return clean_environment(url_for(kind, url), **more) | {"PYTHONPATH": ""}


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


@contextmanager
def running(*command: str, closed: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command]
    process = subprocess.Popen(
        shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("closed", CLOSED)
async def test_a_worker_without_streams_works_and_ends(
    closed: str, database_url: str, connection: AsyncConnection[Any]
) -> None:
    env = environment("worker", database_url, PGQUEUE_MODULES="tests.support.tasks")
    with running(sys.executable, "-m", "pgqueue.worker", closed=closed, env=env) as process:

        async def alive() -> bool:
            return bool(
                await sql(connection, "SELECT 1 AS one FROM job_workers WHERE kind = 'worker'")
            )

        await until(alive, 90)
        standard = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        assert standard == [os.devnull] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0


@pytest.mark.parametrize("closed", CLOSED)
async def test_commands_without_streams_do_their_work(
    closed: str, database_url: str, connection: AsyncConnection[Any], empty_database_url: str
) -> None:
    await a_type(connection, job_type="plain")
    command = (
        sys.executable,
        "-m",
        "pgqueue.cli",
        "enqueue",
        "plain",
        "--payload",
        "{}",
        "--job-id",
        "j",
    )
    with running(*command, closed=closed, env=environment("enqueue", database_url)) as process:
        assert process.wait(90) == 0
    assert await value(connection, "SELECT count(*) FROM job_logs") == 1
    command = (sys.executable, "-m", "pgqueue.cli", "migrate")
    with running(
        *command,
        closed=closed,
        env=clean_environment(empty_database_url, PGQUEUE_MODULES="tests.support.tasks"),
    ) as process:
        assert process.wait(90) == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
async def test_an_api_without_streams_serves(
    database_url: str, connection: AsyncConnection[Any]
) -> None:
    env = environment("api", database_url, PGQUEUE_MODULES="pgqueue_service.notifications")
    command = (sys.executable, "-m", "pgqueue.cli", "api", "--port", "0", "--processes", "2")
    with running(*command, closed="<&- >&- 2>&-", env=env) as process:

        async def alive() -> bool:
            return bool(
                await sql(connection, "SELECT 1 AS one FROM job_workers WHERE kind = 'api'")
            )

        await until(alive, 90)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0


TRAPS = (
    "logging.py",
    "psycopg.py",
    "json.py",
    "click.py",
    "msgspec.py",
    "asyncio.py",
    "random.py",
    "secrets.py",
    "uvicorn.py",
)


@pytest.mark.parametrize(
    "command",
    [("-m", "pgqueue.worker", "--help"), ("-m", "pgqueue.cli", "migrate", "--plan"),
     ("-m", "pgqueue.cli", "api", "--port", "0"),
     ("-mpgqueue.worker",)],
    ids=" ".join,
)  # fmt: skip
def test_files_in_the_working_directory_do_not_stand_in_for_modules(
    command: tuple[str, ...], tmp_path: Path, database_url: str
) -> None:
    for name in TRAPS:
        (tmp_path / name).write_text("import os; os._exit(77)\n")
    (tmp_path / "mine.py").write_text("raise SystemExit(66)\n")
    env = environment("worker", database_url) | {"PGQUEUE_MODULES": "mine"}
    call = [sys.executable, *command]
    done = subprocess.run(
        call, cwd=tmp_path, env=env, capture_output=True, timeout=150, check=False
    )
    expected = 0 if "--help" in command or "--plan" in command else 1
    assert done.returncode == expected, done.stderr.decode()
    # The application's own module is found all the same, and ended the others.
    assert (b"SystemExit: 66" in done.stderr) is (done.returncode == 1)


@pytest.mark.parametrize("kind", ["wokrer", "woker", "enqeue", "jbo", "migrat", "APi", "statsu"])
def test_a_misspelt_command_is_told_with_what_was_meant(kind: str) -> None:
    result = CliRunner().invoke(main, [kind])
    assert result.exit_code == 2
    assert "did you mean " in result.stderr
    assert result.stderr.rstrip("?\n").rpartition(" ")[2] in [*COMMANDS, "api"]


@pytest.mark.parametrize(
    "arguments",
    [("dlq", "lsit"), ("worker", "--modlues", "x"), ("enqueue", "t", "--paylaod", "{}")],
)
def test_so_are_subcommands_and_options(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert (result.exit_code, "id you mean" in result.stderr) == (2, True)


def test_what_is_like_nothing_is_told_alone() -> None:
    assert "did you mean" not in CliRunner().invoke(main, ["frobnicate-it"]).stderr


@given(
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
    )
)
def test_what_is_suggested_for_a_shell_is_one_word_of_it(text: str) -> None:
    suggested = shell_word(text)
    assert not any(ord(one) < 32 for one in suggested)
    if not suggested.startswith("$'"):
        assert shlex.split(suggested) == [text]
    assert shell_argument(text) in (suggested, f"-- {suggested}")


@pytest.mark.parametrize(
    "text", ["a\nb", "it's\t$(id)", "\x1b[2J\\n'", "a\u202eb\u0085c\U000e0001", "--all\n"]
)
def test_bash_reads_it_as_the_text(text: str) -> None:
    command = [
        "bash",
        "-c",
        f"printf %s {shell_argument(text)}"
        if not text.startswith("-")
        else f"printf %s {shell_word(text)}",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        check=True,
    )
    assert done.stdout.decode() == text
