"""What the commands share: exit codes, settings, running something asynchronous, and printing for people or programs."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NoReturn

import click
import msgspec
import psycopg
from psycopg_pool import PoolTimeout

from pgqueue.client import Client
from pgqueue.durations import duration
from pgqueue.errors import QueueError, SchemaError, SettingsError
from pgqueue.settings import Settings, settings_from

NOT_SO = 1
WRONG_USAGE = 2
CANNOT_CONNECT = 3


def fail(message: str, code: int) -> NoReturn:
    click.echo(f"pgqueue: {message}", err=True)
    sys.exit(code)


def read_settings(*, database: bool = True) -> Settings:
    """The settings; exits 2 with every problem when they are wrong, or when there is no database and one is needed."""
    try:
        settings = settings_from()
        if database:
            _ = settings.conninfo
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"pgqueue: {problem}", err=True)
        sys.exit(WRONG_USAGE)
    for warning in settings.warnings:
        click.echo(f"pgqueue: {warning}", err=True)
    return settings


def seconds(text: str, name: str) -> float:
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from None


def with_client(action: Callable[[Client, Settings], Awaitable[Any]]) -> Any:
    """Runs `action` with a client; what goes wrong becomes a sentence and an exit code."""
    settings = read_settings()

    async def run() -> Any:
        async with Client.open(settings.with_(pool_size=2)) as client:
            return await action(client, settings)

    return run_async(run)


def run_async(action: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await action()

    try:
        return asyncio.run(main())
    except SettingsError as error:
        fail(str(error), WRONG_USAGE)
    except QueueError as error:
        fail(str(error), NOT_SO)
    except psycopg.errors.UndefinedTable:
        fail(str(SchemaError("the database has no schema of pgqueue: run pgqueue migrate")), NOT_SO)
    except (psycopg.OperationalError, PoolTimeout, OSError) as error:
        fail(f"cannot reach the database ({type(error).__name__})", CANNOT_CONNECT)
    except KeyboardInterrupt:
        sys.exit(130)


def print_json(value: Any) -> None:
    """One JSON document, times as ISO 8601."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def moment(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
