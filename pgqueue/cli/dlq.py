"""`pgqueue dlq`: the dead-letter queue."""

import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click

from pgqueue.cli.common import NOT_SO, WRONG_USAGE, fail, json_option, say, with_client
from pgqueue.cli.jobs import read_payload, show
from pgqueue.cli.output import as_json as line_of_json
from pgqueue.cli.output import cell, entries, job_document, on_terminal, print_json, public, span, table
from pgqueue.cli.progress import progress
from pgqueue.cli.which import Which, filters
from pgqueue.client import Client
from pgqueue.errors import QueueError, WrongState
from pgqueue.job import DeadFilter, JobView, Status
from pgqueue.settings import Settings

PAGE = 500


@click.group()
def dlq() -> None:
    """The dead-letter queue: jobs that were given up."""


@dlq.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@click.option("--payload", is_flag=True, help="With --json: payloads as they are; else e-mail addresses in them are masked.")
@json_option
def list_(limit: int, payload: bool, as_json: bool, **which: Any) -> None:
    """Lists dead jobs, newest first."""

    async def run(client: Client, _: Settings) -> tuple[int, list[JobView]]:
        chosen = await Which(**which).resolve(client)
        return await client.count_dead(chosen), [view async for view in pages(client, chosen, limit)]

    total, views = with_client(run)
    if as_json:
        print_json({"count": len(views), "total": total, "jobs": [job_document(view, payload=payload) for view in views]})
        return
    rows = [
        {"job": view.job_id, "type": view.job_type, "dead": view.dead_at, "tries": view.attempt_count, "error": view.error}
        for view in views
    ]
    if on_terminal():
        entries(rows, "job", ("dead", "type", "tries", "error"), "no dead jobs")
    else:
        table(rows, {name: name for name in ("job", "type", "dead", "tries", "error")}, "no dead jobs")
    if total > len(views):
        say(f"{len(views)} of {total}: --limit {min(total, 100_000)} shows more; pgqueue dlq retry sends them back")


async def pages(client: Client, which: DeadFilter, limit: int) -> AsyncIterator[JobView]:
    """Dead jobs, newest first, read page by page."""
    cursor = None
    while limit > 0:
        page = await client.dead_letters(which, limit=min(limit, PAGE), cursor=cursor)
        for view in page:
            yield view
        if len(page) < min(limit, PAGE):
            return
        limit -= len(page)
        dead_at: datetime | None = page[-1].dead_at
        assert dead_at is not None  # noqa: S101 - the dead have one
        cursor = (dead_at, page[-1].id)


@dlq.command("show")
@click.argument("job_id", metavar="ID")
@click.option("--payload", is_flag=True, help="Show the payload as it is; else e-mail addresses in it are masked.")
@json_option
def show_(job_id: str, payload: bool, as_json: bool) -> None:
    """Shows one dead job: why, and what happened before."""

    async def run(client: Client, _: Settings) -> JobView:
        view = await client.get(job_id)
        if view.status is not Status.DLQ:
            raise WrongState(job_id, view.status, f"Job is {view.status}, not dlq")
        return view

    show(with_client(run), payload=payload, as_json=as_json)


@dlq.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=10_000, show_default=True, help="At most so many, longest dead first."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=50.0, show_default=True, help="So many a second.")
@click.option("--payload", metavar="JSON", help="Replaces the payload of the one job; - is stdin, @FILE a file.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def retry(
    everything: bool, limit: int, rate: float, payload: str | None, dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Sends dead jobs back to their queues, with attempts from 0: those named by ID, or those that pass all filters.

    A single ID may also be a cancelled job. Exits 1 when fewer went back than were named.
    """
    which = Which(**given)
    which.require(everything)
    if payload is not None and (len(which.job_ids) != 1 or which.filtered):
        raise click.UsageError("--payload goes with exactly one ID")
    content = None if payload is None else read_payload(payload)

    async def run(client: Client, _: Settings) -> dict[str, Any]:
        if len(which.job_ids) == 1 and not which.filtered and not dry_run:
            await client.replay(which.job_ids[0], content)
            return {"retried": 1, "matched": 1, "remaining": 0, "dryRun": False}
        chosen = await which.resolve(client)
        if not dry_run:
            ask("send back", min(await client.count_dead(chosen), limit), yes)
        done = await client.replay_many(chosen, rate=rate, limit=limit, dry_run=dry_run)
        return {"retried": done.retried, "matched": done.matched, "remaining": done.remaining, "dryRun": done.dry_run}

    answer = with_client(run)
    if as_json:
        print_json(answer)
    elif dry_run:
        click.echo(f"would send back {min(answer['matched'], limit)} of {answer['matched']} dead jobs")
    else:
        pace = f", {rate:g} a second, the last in {span((answer['retried'] - 1) / rate)}" if answer["retried"] > 1 else ""
        click.echo(f"{answer['retried']} jobs sent back{pace}")
        if answer["remaining"]:
            say(f"{answer['remaining']} that matched are still dead: run it again in {span(answer['retried'] / rate)}")
    missed = len(set(which.job_ids)) - answer["matched"] if which.job_ids and not which.filtered else 0
    if missed > 0:
        fail(f"{missed} of the {len(set(which.job_ids))} jobs are not in the dead-letter queue", NOT_SO)


def ask(what: str, count: int, yes: bool) -> None:
    """On a terminal, and for more than one job."""
    if count > 1 and not yes and sys.stdin.isatty():
        click.confirm(f"{what} {count} dead jobs?", abort=True, err=True)


@dlq.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100_000, show_default=True, help="At most so many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(everything: bool, limit: int, yes: bool, as_json: bool, **given: Any) -> None:
    """Takes dead jobs out of the dead-letter queue: they become cancelled, and are never tried again by themselves.

    Neither their ids nor their places in a rate limit come free. Exits 1 when one of the named is not in the dead-letter queue.
    """
    which = Which(**given)
    which.require(everything)

    async def run(client: Client, _: Settings) -> tuple[int, list[str]]:
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
        fail("; ".join(refused[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else ""), NOT_SO)


async def delete_each(client: Client, ids: list[str]) -> tuple[int, list[str]]:
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


@dlq.command()
@json_option
def errors(as_json: bool) -> None:
    """Groups dead jobs by what they died of, the biggest groups first."""

    async def run(client: Client, _: Settings) -> list[dict[str, Any]]:
        return await client.report("dead_letter_errors")

    rows = with_client(run)
    if as_json:
        print_json([public(row) for row in rows])
        return
    columns = {"count": "jobs", "last": "last", "sample_job_id": "for instance", "fingerprint": "error"}
    table(rows, columns, "no dead jobs", long=("sample_job_id", "fingerprint"))


@dlq.command()
@filters
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file, readable by you alone; else stdout."
)
@click.option("--limit", type=click.IntRange(1), default=1_000_000_000, help="At most so many.")
@click.option("--json", is_flag=True, expose_value=False, help="JSON lines are what it writes anyway.")
def export(output: Path | None, limit: int, **which: Any) -> None:
    """Writes dead jobs as JSON lines, newest first, with their payloads as they are: personal data."""
    if output is None:
        _ = with_client(lambda client, _: write(client, Which(**which), limit, sys.stdout.buffer))
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        fail(f"{output}: {error.strerror}: name a file that is not there yet", WRONG_USAGE)
    with os.fdopen(descriptor, "wb") as file:
        count = with_client(lambda client, _: write(client, Which(**which), limit, file))
    say(f"{count} jobs written to {cell(str(output))}")


async def write(client: Client, which: Which, limit: int, file: IO[bytes]) -> int:
    chosen = await which.resolve(client)
    count = 0
    with progress("exporting", min(await client.count_dead(chosen), limit)) as tell:
        async for view in pages(client, chosen, limit):
            file.write(line_of_json(job_document(view, payload=True)) + b"\n")
            count += 1
            tell(count)
    file.flush()
    return count
