"""The command line for tests: within this process where that is enough, as a process of its own
where it is not."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from click.testing import CliRunner, Result

from pgqueue.cli import main
from tests.support.logged import SAID
from tests.support.logins import url_for

Cli = Callable[..., Awaitable[Result]]


def cli_for(database_url: str) -> Cli:
    """`await cli("job", "x")`: runs pgqueue on that database. No terminal anywhere."""

    async def cli(*arguments: str, stdin: str | None = None, **environment: str | None) -> Result:
        url = url_for(arguments[0] if arguments else "", database_url)
        env: dict[str, str | None] = {"DATABASE_URL": url, **environment}
        # In a thread: a command has an event loop of its own.
        result = await asyncio.to_thread(
            CliRunner().invoke, main, list(arguments), input=stdin, env=env
        )
        SAID.append(result.stderr)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return cli


def document(result: Result) -> Any:
    """What a command printed with --json: one document, and nothing else."""
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


async def process(*arguments: str, url: str | None, **environment: str) -> tuple[int, str, str]:
    """Runs pgqueue as a process: exit code, stdout, stderr."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgqueue.cli", *arguments),
        env=clean_environment(url and url_for(arguments[0], url), **environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await started.communicate()
    return started.returncode or 0, out.decode(), err.decode()


def clean_environment(url: str | None, **more: str) -> dict[str, str]:
    """Ours, without what would be settings."""
    mine = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PGQUEUE_", "DATABASE_", "MAIL_", "SMTP_"))
    }
    return {**mine, **({"DATABASE_URL": url} if url else {}), **more}
