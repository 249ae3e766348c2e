"""What the commands share: exit codes, settings, a client, and sentences for what goes wrong."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import click
import psycopg
from psycopg_pool import PoolTimeout

from pgqueue.cli.output import safe
from pgqueue.client import AsyncClient
from pgqueue.database.migrations import check_schema
from pgqueue.database.pooler import check_pooler
from pgqueue.database.reasons import reason
from pgqueue.database.session import connected
from pgqueue.durations import duration
from pgqueue.errors import (
    JobNotFound,
    ModuleError,
    QueueError,
    SettingsError,
    TaskError,
    Unavailable,
)
from pgqueue.masking import mask
from pgqueue.plugins import settings_class
from pgqueue.settings import Settings, settings_from

NOT_SO = 1
WRONG_USAGE = 2
CANNOT_CONNECT = 3
INTERRUPTED = 130

ADVICE = "Is DATABASE_URL right, and is Postgres running?"

INSTALL_SERVICE = "pip install pgqueue-service"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def say(message: str) -> None:
    """A line on stderr: what is printed on stdout stays data."""
    click.echo(f"pgqueue: {safe(message)}", err=True)


def fail(message: str, code: int) -> NoReturn:
    say(message)
    sys.exit(code)


def read_settings(*, database: bool = True) -> Settings:
    """Read the settings that the installed distributions need. Exits 2 with every problem when they
    are wrong, or when there is no database and one is needed."""
    try:
        settings = settings_from(None, settings_class())
        if database:
            _ = settings.conninfo
    except SettingsError as error:
        for problem in error.problems:
            say(problem)
        sys.exit(WRONG_USAGE)
    for warning in settings.warnings:
        say(warning)
    return settings


def cannot_load(error: TaskError) -> int:
    """Says what is wrong with the tasks, with the traceback where a module could not be imported.
    The exit code."""
    if trace := getattr(error, "trace", ""):
        click.echo(safe(trace, lines=True).rstrip(), err=True)
    say(str(error))
    return NOT_SO if isinstance(error, ModuleError) else WRONG_USAGE


def seconds(text: str, name: str) -> float:
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from None


def with_client(action: Callable[[AsyncClient, Settings], Awaitable[Any]]) -> Any:
    """Runs `action` with a client; what goes wrong becomes a sentence and an exit code."""
    settings = read_settings()

    async def run() -> Any:
        # One connection before the pool, which would try for half a minute and not say why.
        async with await connected(settings.conninfo, settings.pgbouncer) as connection:
            await check_pooler(connection, settings.pgbouncer)
            with contextlib.suppress(
                psycopg.errors.InsufficientPrivilege
            ):  # a producer may not look
                await check_schema(connection)
        async with AsyncClient.open(
            settings.with_(pool_size=1), timeout=settings.statement_timeout
        ) as client:
            return await action(client, settings)

    return run_async(run)


def run_async(action: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await action()

    try:
        return asyncio.run(main())
    except SettingsError as error:
        fail(str(error), WRONG_USAGE)
    except JobNotFound as error:
        fail(f"{error} (retention may have removed it)", NOT_SO)
    except Unavailable as error:
        fail(*explain(error.__cause__ if isinstance(error.__cause__, Exception) else error))
    except QueueError as error:
        fail(str(error), NOT_SO)
    except (psycopg.Error, PoolTimeout, OSError) as error:
        fail(*explain(error))
    except UnicodeEncodeError:
        fail("an argument is not valid UTF-8", WRONG_USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def explain(error: Exception) -> tuple[str, int]:
    """What the database did to us, in words with what to do, and the exit code."""
    said = mask(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    match error:
        case (
            psycopg.errors.UndefinedTable()
            | psycopg.errors.UndefinedFunction()
            | psycopg.errors.UndefinedColumn()
        ):
            return f"the schema is not this release's ({said}): run pgqueue migrate", NOT_SO
        case psycopg.errors.InsufficientPrivilege():
            return (
                f"{said}: connect as a role that may do this; sql/roles.sql says which",
                WRONG_USAGE,
            )
        case psycopg.errors.QueryCanceled() | psycopg.errors.LockNotAvailable():
            return (
                (
                    f"the database did not answer in time ({said}): see sql/monitoring/locks.sql "
                    "for who is in the way"
                ),
                CANNOT_CONNECT,
            )
        case psycopg.OperationalError() | PoolTimeout() | OSError() | Unavailable():
            return f"cannot reach the database: {reason(error)}. {ADVICE}", CANNOT_CONNECT
    return f"the database refused: {said}", NOT_SO


def spare_collections() -> None:
    """For a process that runs on: what was loaded by now stays and is not looked at again, and a
    batch of short-lived objects is no reason yet to look for cycles (measured: a tenth of a busy
    worker's time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
