"""`pgqueue prune`: retention, by hand or from cron."""

from pathlib import Path

import click

from pgqueue.cli.output import print_json, public
from pgqueue.cli.progress import progress
from pgqueue.cli.runner import json_option, read_settings, run_async
from pgqueue.database.archive import make
from pgqueue.database.migrations import check_schema
from pgqueue.database.retention import Pruned
from pgqueue.database.retention import prune as remove
from pgqueue.database.session import connected
from pgqueue.durations import spoken
from pgqueue.settings import Settings


@click.command()
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A folder where each row is written first, as JSON lines, one file a month.",
)
@json_option
def prune(archive: Path | None, as_json: bool) -> None:
    """Remove jobs and ids that are past their time, in small batches that block no other query.

    The times are PGQUEUE_KEEP_COMPLETED, PGQUEUE_KEEP_DLQ and PGQUEUE_KEEP_IDS. It can be stopped
    at any time, and run while workers run.
    """
    settings = read_settings()
    if archive is not None:
        try:
            make(archive)
        except OSError as error:
            raise click.BadParameter(
                f"{archive}: {error.strerror}", param_hint="--archive"
            ) from None
    done: Pruned = run_async(lambda: _prune(settings, archive))
    if as_json:
        stay = {"kept": done.kept, "reason": done.reason} if done.kept else {}
        print_json(
            public(
                {"jobs": done.jobs, "tombstones": done.tombstones, "expired": done.expired} | stay
            )
        )
        return
    kept = (
        f"completed ones are kept for {spoken(settings.keep_completed)}, dead ones for "
        f"{spoken(settings.keep_dlq)}"
    )
    click.echo(f"{done.jobs} jobs removed ({kept}), {done.tombstones} ids forgotten")
    if done.kept:
        click.echo(
            f"{done.kept} jobs past their time stay, because they cannot be removed: {done.reason}"
        )
    if done.expired:
        click.echo(
            f"{done.expired} jobs that had been processing for 24 hours moved to the dead-letter "
            "queue, or back to their queues"
        )


async def _prune(settings: Settings, archive: Path | None) -> Pruned:
    async with await connected(settings.direct_conninfo, settings.direct_is_pooled) as connection:
        await check_schema(connection)
        with progress("removed") as tell:
            return await remove(
                connection, settings, archive=archive, told=lambda so_far: tell(so_far.jobs)
            )
