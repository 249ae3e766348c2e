"""`pgqueue enqueue`, `job` and `cancel`: one job."""

import contextlib
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click
import msgspec
import psycopg

from pgqueue.cli.blockers import waits_for
from pgqueue.cli.output import cell, facts, job_document, masked, moment, print_json, safe
from pgqueue.cli.runner import NOT_SO, fail, json_option, seconds, with_client
from pgqueue.cli.timeline import timeline
from pgqueue.client import AsyncClient
from pgqueue.errors import UnknownType
from pgqueue.job import JobView, Status, Ticket
from pgqueue.printable import shell_argument
from pgqueue.settings import Settings
from pgqueue.suggestions import did_you_mean


def read_payload(text: str) -> msgspec.Raw:
    """JSON from the command line, from stdin (`-`) or from a file (`@name`), unchanged."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise click.BadParameter(
                f"{text[1:]} cannot be read: {error}", param_hint="--payload"
            ) from None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = """write it in single quotes, as in '{"image": "a.png"}'"""
        raise click.BadParameter(f"not JSON ({error}): {hint}", param_hint="--payload") from None
    return msgspec.Raw(text.encode())


@click.command()
@click.argument("job_type", metavar="TYPE")
@click.option(
    "--payload",
    required=True,
    metavar="JSON",
    help="JSON; - reads stdin, @FILE reads a file.",
)
@click.option("--job-id", help="Id of the job. Enqueueing the same id again makes no new job.")
@click.option(
    "--in", "delay", metavar="DURATION", help='Run after this time: "30s", "10m", "1h", "7d".'
)
@click.option(
    "--user-id",
    help="User of the job; required for a type with a limit, unless the payload names the user.",
)
@click.option("--queue", help="Replaces the default of the type.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 (first) to 9; default 5.")
@click.option(
    "--max-attempts", type=click.IntRange(1, 1000), help="Replaces the default of the type."
)
@json_option
def enqueue(
    job_type: str,
    payload: str,
    job_id: str | None,
    delay: str | None,
    user_id: str | None,
    queue: str | None,
    priority: int | None,
    max_attempts: int | None,
    as_json: bool,
) -> None:
    """Enqueue one job of TYPE. Exits 1 when it is refused, or when the job with that id has
    ended."""
    content = read_payload(payload)
    wait = None if delay is None else timedelta(seconds=seconds(delay, "--in"))

    async def run(client: AsyncClient, _: Settings) -> Ticket:
        try:
            return await client.enqueue(
                job_type,
                content,
                job_id=job_id,
                user_id=user_id,
                queue=queue,
                priority=priority,
                delay=wait,
                max_attempts=max_attempts,
            )
        except UnknownType as error:
            raise UnknownType(f"{error}{did_you_mean(job_type, await published(client))}") from None

    ticket: Ticket = with_client(run)
    if as_json:
        print_json({"jobId": ticket.job_id, "status": ticket.status, "created": ticket.created})
    elif ticket.created:
        click.echo(f"Job {safe(ticket.job_id)} enqueued")
    else:
        click.echo(f"Job {safe(ticket.job_id)} existed before: {ticket.status}")
    if ticket.status is not None and ticket.status.ended:
        again = f": pgqueue dlq retry {shell_argument(ticket.job_id)} sends it back to its queue"
        again = "" if ticket.status is Status.COMPLETED else again
        fail(f"the job has ended ({ticket.status}){again}", NOT_SO)


async def published(client: AsyncClient) -> list[str]:
    """The names of the job types, if this role may read them."""
    with contextlib.suppress(psycopg.Error):
        return [row["job_type"] for row in await client.run("list_types")]
    return []


@click.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--payload",
    is_flag=True,
    help="Show the payload unchanged; otherwise e-mail addresses in it are masked.",
)
@json_option
def job(job_id: str, payload: bool, as_json: bool) -> None:
    """Show the job ID, with its history as a timeline."""

    async def run(client: AsyncClient, _: Settings) -> tuple[JobView, list[str]]:
        view = await client.get(job_id)
        return view, await waits_for(client, view)

    view, waits = with_client(run)
    show(view, payload=payload, as_json=as_json, waits=waits)


def show(view: JobView, *, payload: bool, as_json: bool, waits: Sequence[str] = ()) -> None:
    """Print one job, and what it waits for."""
    if as_json:
        print_json(job_document(view, payload=payload) | {"waitsFor": list(waits)})
        return
    progress = (
        None
        if view.progress is None or view.status is not Status.PROCESSING
        else f"{view.progress:.0%} {masked(view.progress_note) or ''}".strip()
    )
    facts(
        [
            ("job", view.job_id),
            ("type", view.job_type),
            ("user", view.user_id),
            ("status", view.status),
            *(("waits for", one) for one in waits),
            ("attempts", f"{view.attempt_count} of {view.max_attempts}"),
            ("queue", f"{view.queue}, priority {view.priority}"),
            *([("progress", progress)] if progress else []),
            *([("error", masked(view.error))] if view.error else []),
            *([("receipt", masked(view.receipt))] if view.receipt else []),
            ("row", view.id),
        ]
    )
    click.echo("\nTimeline (UTC)")
    for when, what in timeline(view):
        click.echo(f"  {moment(when)}  {safe(what)}")
    click.echo(f"\nPayload{'' if payload else ' (e-mail addresses masked; --payload shows them)'}")
    text = msgspec.json.format(
        msgspec.json.encode(view.payload if payload else masked(view.payload)), indent=2
    ).decode()
    click.echo(safe(text, lines=True))
    if view.stack_trace:
        click.echo("\nStack trace of the last failure")
        click.echo(safe(masked(view.stack_trace), lines=True))


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Cancel the job ID. A running job loses its lease at once, and its handler is stopped within
    seconds."""

    async def run(client: AsyncClient, _: Settings) -> None:
        await client.cancel(job_id)

    with_client(run)
    if as_json:
        print_json({"jobId": job_id, "status": Status.CANCELLED})
    else:
        click.echo(f"Job {cell(job_id)} cancelled")
