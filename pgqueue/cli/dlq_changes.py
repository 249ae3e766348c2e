"""`pgqueue dlq retry` and `delete`."""

import sys
from typing import Any

import click

from pgqueue.cli.dlq_filters import DlqFilters, filters, pages
from pgqueue.cli.jobs import read_payload
from pgqueue.cli.output import print_json, span
from pgqueue.cli.progress import progress
from pgqueue.cli.runner import NOT_SO, fail, json_option, say, with_client
from pgqueue.client import AsyncClient
from pgqueue.errors import QueueError
from pgqueue.settings import Settings


@click.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10_000,
    show_default=True,
    help="Most jobs, the longest dead first.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=50.0,
    show_default=True,
    help="Jobs per second.",
)
@click.option(
    "--payload",
    metavar="JSON",
    help="Replaces the payload of one job; - reads stdin, @FILE reads a file.",
)
@click.option("--dry-run", is_flag=True, help="Count the jobs, change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def retry(
    everything: bool,
    limit: int,
    rate: float,
    payload: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Enqueue dead jobs again with attempts from 0: the jobs named by ID, or the jobs that match
    all filters.

    A single ID may also name a cancelled job. Exits 1 when fewer jobs were enqueued than named.
    """
    which = DlqFilters(**given)
    which.require(everything)
    if payload is not None and (len(which.job_ids) != 1 or which.filtered):
        raise click.UsageError("--payload goes with exactly one ID")
    content = None if payload is None else read_payload(payload)

    async def run(client: AsyncClient, _: Settings) -> dict[str, Any]:
        if len(which.job_ids) == 1 and not which.filtered and not dry_run:
            await client.replay(which.job_ids[0], content)
            return {"retried": 1, "matched": 1, "remaining": 0, "dryRun": False}
        chosen = await which.resolve(client)
        if not dry_run:
            ask("send back", min(await client.count_dead(chosen), limit), yes)
        done = await client.replay_many(chosen, rate=rate, limit=limit, dry_run=dry_run)
        return {
            "retried": done.retried,
            "matched": done.matched,
            "remaining": done.remaining,
            "dryRun": done.dry_run,
        }

    answer = with_client(run)
    if as_json:
        print_json(answer)
    elif dry_run:
        click.echo(
            f"would send back {min(answer['matched'], limit)} of {answer['matched']} dead jobs"
        )
    else:
        pace = (
            f", {rate:g} a second, the last in {span((answer['retried'] - 1) / rate)}"
            if answer["retried"] > 1
            else ""
        )
        click.echo(
            f"{answer['retried']} job{'' if answer['retried'] == 1 else 's'} sent back{pace}"
        )
        if answer["remaining"]:
            say(
                f"{answer['remaining']} that matched are still dead: run it again in "
                f"{span(answer['retried'] / rate)}"
            )
    missed = (
        len(set(which.job_ids)) - answer["matched"] if which.job_ids and not which.filtered else 0
    )
    if missed > 0:
        fail(
            f"{missed} of the {len(set(which.job_ids))} jobs are not in the dead-letter queue",
            NOT_SO,
        )


def ask(what: str, count: int, yes: bool) -> None:
    """On a terminal, and for more than one job."""
    if count > 1 and not yes and sys.stdin.isatty():
        click.confirm(f"{what} {count} dead jobs?", abort=True, err=True)


@click.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100_000,
    show_default=True,
    help="Most jobs.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def delete(everything: bool, limit: int, yes: bool, as_json: bool, **given: Any) -> None:
    """Remove jobs from the dead-letter queue. They become cancelled and are not tried again.

    Their ids stay known, and they still count in a rate limit. Exits 1 when a job that was named is
    not in the dead-letter queue.
    """
    which = DlqFilters(**given)
    which.require(everything)

    async def run(client: AsyncClient, _: Settings) -> tuple[int, list[str]]:
        ids = list(dict.fromkeys(which.job_ids))
        if not ids or which.filtered:
            chosen = await which.resolve(client)
            ids = [view.job_id async for view in pages(client, chosen, limit)]
        ask("delete", len(ids), yes)
        return await delete_each(client, ids)

    deleted, refused = with_client(run)
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"{deleted} jobs deleted")
    if refused:
        fail(
            "; ".join(refused[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else ""),
            NOT_SO,
        )


async def delete_each(client: AsyncClient, ids: list[str]) -> tuple[int, list[str]]:
    deleted = 0
    refused: list[str] = []
    with progress("deleting", len(ids)) as tell:
        for number, job_id in enumerate(ids, 1):
            try:
                await client.delete_dead(job_id)
                deleted += 1
            except QueueError as error:
                refused.append(str(error))
            tell(number)
    return deleted, refused
