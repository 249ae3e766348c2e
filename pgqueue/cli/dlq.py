"""`pgqueue dlq`: the dead-letter queue; what changes it is in dlq_changes."""

import os
import sys
from pathlib import Path
from typing import IO, Any

import click

from pgqueue.cli.dlq_changes import delete, retry
from pgqueue.cli.dlq_filters import DlqFilters, filters, pages
from pgqueue.cli.jobs import show
from pgqueue.cli.output import as_json as line_of_json
from pgqueue.cli.output import (
    cell,
    entries,
    job_document,
    masked,
    on_terminal,
    print_json,
    public,
    table,
)
from pgqueue.cli.progress import progress
from pgqueue.cli.runner import WRONG_USAGE, fail, json_option, say, with_client
from pgqueue.client import AsyncClient
from pgqueue.errors import WrongState
from pgqueue.job import JobView, Status
from pgqueue.settings import Settings


@click.group()
def dlq() -> None:
    """The dead-letter queue: jobs that failed for good."""


dlq.add_command(retry)
dlq.add_command(delete)


@dlq.command("list")
@filters
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Most jobs.",
)
@click.option(
    "--payload",
    is_flag=True,
    help="With --json: show payloads unchanged; otherwise e-mail addresses in them are masked.",
)
@json_option
def list_(limit: int, payload: bool, as_json: bool, **which: Any) -> None:
    """List dead jobs, newest first."""

    async def run(client: AsyncClient, _: Settings) -> tuple[int, list[JobView]]:
        chosen = await DlqFilters(**which).resolve(client)
        return await client.count_dead(chosen), [
            view async for view in pages(client, chosen, limit)
        ]

    total, views = with_client(run)
    if as_json:
        print_json(
            {
                "count": len(views),
                "total": total,
                "jobs": [job_document(view, payload=payload) for view in views],
            }
        )
        return
    rows = [
        {
            "job": view.job_id,
            "type": view.job_type,
            "dead": view.dead_at,
            "tries": view.attempt_count,
            "error": masked(view.error),
        }
        for view in views
    ]
    if on_terminal():
        entries(rows, "job", ("dead", "type", "tries", "error"), "no dead jobs")
    else:
        table(
            rows, {name: name for name in ("job", "type", "dead", "tries", "error")}, "no dead jobs"
        )
    if total > len(views):
        say(
            f"{len(views)} of {total}: --limit {min(total, 100_000)} shows more; pgqueue dlq "
            "retry sends them back"
        )


@dlq.command("show")
@click.argument("job_id", metavar="ID")
@click.option(
    "--payload",
    is_flag=True,
    help="Show the payload unchanged; otherwise e-mail addresses in it are masked.",
)
@json_option
def show_(job_id: str, payload: bool, as_json: bool) -> None:
    """Show one dead job: its error and its history."""

    async def run(client: AsyncClient, _: Settings) -> JobView:
        view = await client.get(job_id)
        if view.status is not Status.DLQ:
            raise WrongState(job_id, view.status, f"Job is {view.status}, not dlq")
        return view

    show(with_client(run), payload=payload, as_json=as_json)


@dlq.command()
@json_option
def errors(as_json: bool) -> None:
    """Group dead jobs by error, the largest groups first."""

    async def run(client: AsyncClient, _: Settings) -> list[dict[str, Any]]:
        return await client.report("dead_letter_errors")

    rows = with_client(run)
    if as_json:
        print_json([public(row) for row in rows])
        return
    columns = {
        "count": "jobs",
        "last": "last",
        "sample_job_id": "for instance",
        "fingerprint": "error",
    }
    table(rows, columns, "no dead jobs", long=("sample_job_id", "fingerprint"))


@dlq.command()
@filters
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file, readable only by you. Default: stdout.",
)
@click.option("--limit", type=click.IntRange(1), default=1_000_000_000, help="Most jobs.")
@click.option(
    "--json", is_flag=True, expose_value=False, help="No effect: the output is always JSON lines."
)
def export(output: Path | None, limit: int, **which: Any) -> None:
    """Write dead jobs as JSON lines, newest first. Payloads are unchanged and may hold personal
    data."""
    if output is None:
        _ = with_client(
            lambda client, _: write(client, DlqFilters(**which), limit, sys.stdout.buffer)
        )
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        fail(f"{output}: {error.strerror}: name a file that is not there yet", WRONG_USAGE)
    with os.fdopen(descriptor, "wb") as file:
        count = with_client(lambda client, _: write(client, DlqFilters(**which), limit, file))
    say(f"{count} jobs written to {cell(str(output))}")


async def write(client: AsyncClient, which: DlqFilters, limit: int, file: IO[bytes]) -> int:
    chosen = await which.resolve(client)
    count = 0
    with progress("exporting", min(await client.count_dead(chosen), limit)) as tell:
        async for view in pages(client, chosen, limit):
            file.write(line_of_json(job_document(view, payload=True)) + b"\n")
            count += 1
            tell(count)
    file.flush()
    return count
