"""`pgqueue migrate`: the schema, and the job types in it."""

import sys

import click
import psycopg

from pgqueue.cli.output import print_json, safe
from pgqueue.cli.runner import (
    INSTALL_SERVICE,
    NOT_SO,
    WRONG_USAGE,
    cannot_load,
    fail,
    json_option,
    read_settings,
    run_async,
    say,
)
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import (
    OldTable,
    Step,
    applied,
    functions,
    migrations,
    others_may_create,
    pending,
)
from pgqueue.database.migrations import migrate as bring_up
from pgqueue.database.session import connected
from pgqueue.discovery import load_tasks
from pgqueue.errors import SchemaError, SettingsError, TaskError
from pgqueue.import_path import working_directory_last
from pgqueue.plugins import described, load, old_tables
from pgqueue.settings import Settings


@click.command()
@click.option("--to", type=click.IntRange(1), metavar="N", help="No further than version N.")
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Take over a table job_logs of an older service: rename it, and copy the jobs that ended.",
)
@json_option
def migrate(to: int | None, plan: bool, adopt: bool, as_json: bool) -> None:
    """Migrate the schema to this release, then publish the job types of PGQUEUE_MODULES.

    Migrations go forward only. It is safe to run this twice, and from two machines at once. When
    there is a table job_logs that is not pgqueue's, nothing is changed, unless --adopt is given.
    """
    settings = read_settings()
    old_table = _old_table() if adopt else None
    if plan:
        steps, version = run_async(lambda: _plan(settings, to, old_table))
        _tell_plan(steps, version, as_json)
        return

    def told(step: str) -> None:
        click.echo(step, err=as_json)

    async def run() -> tuple[list[Step], list[str], TaskError | None, str | None, str | None]:
        steps = await bring_up(settings.direct_conninfo, to=to, adopt=old_table, told=told)
        return steps, *await _publish(settings), await _warning(settings)

    steps, changed, unloaded, note, warning = run_async(run)
    if unloaded is not None:
        cannot_load(unloaded)
    for sentence in (note, warning):
        if sentence:
            say(sentence)
    if as_json:
        print_json(
            {
                "applied": [one.label for one in steps],
                "published": changed,
                "note": note,
                "warning": warning,
            }
        )
        return _leave(unloaded)
    if not steps:
        click.echo("the schema is up to date" if to is None else f"the schema is at version {to}")
    for job_type in changed:
        click.echo(f"published job type {safe(job_type)}")
    _leave(unloaded)


def _old_table() -> OldTable:
    points = old_tables()
    if not points:
        fail(
            "--adopt: no installed distribution can take over a table. "
            f"pgqueue-service can: {INSTALL_SERVICE}",
            WRONG_USAGE,
        )
    if len(points) > 1:
        names = " and ".join(described(point) for point in points)
        fail(f"--adopt: {names} could each take over the table; uninstall one", WRONG_USAGE)
    try:
        found: OldTable = load(points[0])()
    except SettingsError as error:
        fail(str(error), WRONG_USAGE)
    return found


def _leave(unloaded: TaskError | None) -> None:
    if unloaded is not None:
        sys.exit(NOT_SO)


async def _plan(
    settings: Settings, to: int | None, adopt: OldTable | None
) -> tuple[list[str], int]:
    async with await connected(settings.direct_conninfo, settings.direct_is_pooled) as connection:
        done = await applied(connection)
        try:
            steps = [one.label for one in await pending(connection, to)]
        except SchemaError:
            # The only thing in the way of a database that was never migrated is a stranger's table.
            if done or adopt is None:
                raise
            newer = [one.label for one in migrations() if to is None or one.version <= to]
            if to is None or to >= migrations()[-1].version:
                newer += [one.label for one in functions()]
            steps = [adopt.plan[0], *newer, adopt.plan[1]]
    return steps, done[-1].version if done else 0


def _tell_plan(steps: list[str], version: int, as_json: bool) -> None:
    if as_json:
        print_json({"version": version, "pending": steps})
        return
    click.echo(
        f"the schema is at version {version}"
        if version
        else "the database has no schema of pgqueue"
    )
    for step in steps:
        click.echo(f"would {step}" if " " in step else f"would apply {step}")
    if not steps:
        click.echo("nothing to do")


async def _warning(settings: Settings) -> str | None:
    async with await connected(settings.direct_conninfo, settings.direct_is_pooled) as connection:
        return await others_may_create(connection)


async def _publish(settings: Settings) -> tuple[list[str], TaskError | None, str | None]:
    """The job types that were new or changed; or why there are none. The schema is good without
    them."""
    working_directory_last()
    later = "API and workers publish them when they start; or set PGQUEUE_MODULES and migrate again"
    if not settings.modules:
        return [], None, f"job types are not published: PGQUEUE_MODULES is not set. {later}"
    try:
        tasks, _ = load_tasks(settings.modules)
        declared = declarations(tasks.values(), settings)
    except TaskError as error:
        return [], error, f"the schema is up to date, but job types are not published. {later}"
    try:
        async with await connected(
            settings.direct_conninfo, settings.direct_is_pooled
        ) as connection:
            changes = await publish(connection, declared)
    except psycopg.errors.InsufficientPrivilege as error:
        return [], None, f"job types are not published: {error.diag.message_primary}. {later}"
    return [change["job_type"] for change in changes], None, None
