"""`pgqueue status`: the settings in effect on this machine, and whether the database fits them."""

import sys
from typing import Any

import click
import msgspec
import psycopg
from psycopg import AsyncConnection

from pgqueue.cli.output import facts, on_terminal, print_json, public, table
from pgqueue.cli.runner import (
    CANNOT_CONNECT,
    NOT_SO,
    explain,
    json_option,
    read_settings,
    run_async,
    say,
)
from pgqueue.database.migrations import applied, check_schema, migrations, others_may_create
from pgqueue.database.session import connected
from pgqueue.database.worker_connection import load
from pgqueue.errors import SchemaError
from pgqueue.settings import Settings, shown
from pgqueue.version import __version__


class Server(msgspec.Struct, frozen=True):
    """The state of the database. `problem` is None when this release can work with it; otherwise it
    says what to do."""

    version: str | None = None
    schema: int | None = None
    connections: str | None = None
    problem: str | None = None
    code: int = 0
    warning: str | None = None


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show schema, server, pooler, connections and every setting, secrets masked.

    Exits 1 when the schema is not this release's, and 3 when the database cannot be reached; the
    rest is shown in both cases.
    """
    settings = read_settings()
    server: Server = run_async(lambda: _ask(settings))
    if as_json:
        print_json(_document(settings, server))
    else:
        _print(settings, server)
    for sentence in (server.warning, server.problem):
        if sentence:
            say(sentence)
    sys.exit(server.code)


async def _ask(settings: Settings) -> Server:
    try:
        connection = await connected(settings.conninfo, settings.pgbouncer)
    except (psycopg.Error, OSError) as error:
        said, code = explain(error)
        return Server(problem=said, code=code or CANNOT_CONNECT)
    async with connection:
        numbers = await _numbers(connection)
        version = connection.info.parameter_status("server_version")
        try:
            done = await applied(connection)
            await check_schema(connection)
        except SchemaError as error:
            return Server(version, done[-1].version if done else None, numbers, str(error), NOT_SO)
        except psycopg.errors.InsufficientPrivilege as error:
            return Server(version, None, numbers, *explain(error))
        return Server(
            version, done[-1].version, numbers, warning=await others_may_create(connection)
        )


async def _numbers(connection: AsyncConnection[Any]) -> str:
    cursor = await connection.execute(load("count_connections"))
    here, everywhere, most = await cursor.fetchone() or (0, 0, 0)
    return f"{here} to this database, {everywhere} of max_connections {most} in all"


def connections(settings: Settings) -> list[dict[str, Any]]:
    """How many connections each kind of process takes, at most."""
    direct = bool(settings.direct_url)
    bell = 1 if _doorbell(settings) == "on" else 0
    return [
        {
            "process": "api",
            "usual": settings.pool_size,
            "direct": 0,
            "note": "PGQUEUE_POOL_SIZE for each process",
        },
        {
            "process": "worker",
            "usual": 4 if direct else 5 + bell,
            "direct": 1 + bell if direct else 0,
            "note": "two more when it prunes, PGQUEUE_POOL_SIZE more for job.transaction()",
        },
        {
            "process": "client",
            "usual": settings.pool_size,
            "direct": 0,
            "note": "PGQUEUE_POOL_SIZE",
        },
        {
            "process": "command",
            "usual": 1,
            "direct": 0,
            "note": "migrate and prune: past the pooler",
        },
    ]


def _doorbell(settings: Settings) -> str:
    if not settings.doorbell:
        return "off"
    if settings.pgbouncer and not settings.direct_url:
        return "off: PGQUEUE_PGBOUNCER is on and there is no PGQUEUE_DIRECT_URL"
    return "on"


def _pooler(settings: Settings) -> str:
    if not settings.pgbouncer:
        return "none"
    past = (
        "past it by PGQUEUE_DIRECT_URL"
        if settings.direct_url
        else "nothing goes past it (PGQUEUE_DIRECT_URL is not set)"
    )
    return f"PgBouncer, no prepared statements; {past}; timeouts by ALTER ROLE, see sql/roles.sql"


def _overview(settings: Settings, server: Server) -> dict[str, Any]:
    newest = migrations()[-1].version
    return {
        "release": __version__,
        "schema_version": server.schema,
        "newest_schema_version": newest,
        "postgres": server.version,
        "connections": server.connections,
        **settings.overview(),
        "pooler": _pooler(settings),
        "doorbell": _doorbell(settings),
    }


def _document(settings: Settings, server: Server) -> dict[str, Any]:
    return {
        **public(_overview(settings, server)),
        "problem": server.problem,
        "warning": server.warning,
        **public(settings.obstacles()),
        "processes": connections(settings),
        "settings": [
            {"name": name, "value": value, "about": about} for name, value, about in shown(settings)
        ],
    }


def _print(settings: Settings, server: Server) -> None:
    facts((name.replace("_", " "), value) for name, value in _overview(settings, server).items())
    for problems in settings.obstacles().values():
        for problem in problems:
            say(problem)
    click.echo("\nConnections that a process takes, through DATABASE_URL and past the pooler")
    table(
        connections(settings),
        {"process": "process", "usual": "DATABASE_URL", "direct": "DIRECT_URL", "note": ""},
        "",
        long=("note",),
    )
    click.echo("\nSettings")
    columns = (
        {"name": "name", "value": "value", "about": "what it is"}
        if not on_terminal()
        else {"name": "name", "value": "value"}
    )
    table(
        [{"name": name, "value": value, "about": about} for name, value, about in shown(settings)],
        columns,
        "",
    )
