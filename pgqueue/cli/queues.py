"""`pgqueue queues`, `pause`, `resume` and `dependencies`."""

from collections.abc import Mapping
from typing import Any

import click

from pgqueue.cli.blockers import serving
from pgqueue.cli.output import print_json, public, safe, span, table
from pgqueue.cli.runner import json_option, say, with_client
from pgqueue.client import AsyncClient
from pgqueue.printable import shell_argument
from pgqueue.settings import Settings

Row = dict[str, Any]


def _report(name: str) -> list[Row]:
    async def run(client: AsyncClient, _: Settings) -> list[Row]:
        return await client.report(name)

    rows: list[Row] = with_client(run)
    return rows


@click.command()
@json_option
def queues(as_json: bool) -> None:
    """List the queues with their waiting jobs and their workers."""
    rows = _report("queues")
    if as_json:
        print_json([public(row) for row in rows])
        return
    columns = ("queue", "paused", "ready", "scheduled", "processing", "oldest", "workers", "slots")
    shown = [row | {"oldest": span(row["oldest_ready_s"])} for row in rows]
    table(
        shown,
        {name: name for name in columns},
        "no queues: nothing waits, and no worker is alive",
        long=("queue",),
    )
    for row in rows:
        if row["ready"] and not row["workers"] and not row["paused"]:
            say(f"no worker serves {row['queue']}: start {serving(row['queue'])}")


@click.command()
@click.argument("queue", metavar="QUEUE")
@json_option
def pause(queue: str, as_json: bool) -> None:
    """Pause QUEUE: within two seconds no worker claims jobs from it. Running jobs continue."""
    _steer(queue, True, as_json)


@click.command()
@click.argument("queue", metavar="QUEUE")
@json_option
def resume(queue: str, as_json: bool) -> None:
    """Resume the paused QUEUE."""
    _steer(queue, False, as_json)


def _steer(queue: str, paused: bool, as_json: bool) -> None:
    async def run(client: AsyncClient, _: Settings) -> set[str]:
        known = {row["queue"] for row in await client.report("queues")}
        await (client.pause(queue) if paused else client.resume(queue))
        return known

    if queue not in with_client(run):
        say(
            f"no job waits in a queue {queue} and no worker serves it: is that its name? pgqueue "
            "queues lists them"
        )
    if as_json:
        print_json({"queue": queue, "paused": paused})
    elif paused:
        click.echo(
            f"queue {safe(queue)} is paused; pgqueue resume {shell_argument(queue)} ends that"
        )
    else:
        click.echo(f"queue {safe(queue)} runs")


@click.command()
@json_option
def dependencies(as_json: bool) -> None:
    """List the dependencies of jobs that failed before, and the states of their circuit
    breakers."""
    rows = _report("dependencies")
    if as_json:
        print_json([public(row) for row in rows])
        return
    shown = [row | {"for": span(row["open_s"]), "next try in": _next_probe(row)} for row in rows]
    columns = {
        name: name for name in ("dependency", "state", "for", "next try in", "job_types", "reason")
    }
    table(shown, columns, "no dependency has given trouble", long=("reason",))


def _next_probe(row: Mapping[str, Any]) -> str:
    left = row["next_probe_s"]
    return "-" if left is None else "as soon as a job is due" if left < 0 else span(left)
