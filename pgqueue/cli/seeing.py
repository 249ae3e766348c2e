"""`pgqueue queues`, `pause`, `resume`, `workers` and `stats`: seeing and steering."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from pgqueue.cli.common import json_option, say, seconds, with_client
from pgqueue.cli.output import as_json as line_of_json
from pgqueue.cli.output import facts, on_terminal, print_json, public, safe, span, table
from pgqueue.cli.waiting import serving
from pgqueue.client import Client
from pgqueue.printable import shell_argument
from pgqueue.settings import Settings

Row = dict[str, Any]


def _report(name: str) -> list[Row]:
    async def run(client: Client, _: Settings) -> list[Row]:
        return await client.report(name)

    rows: list[Row] = with_client(run)
    return rows


@click.command()
@json_option
def queues(as_json: bool) -> None:
    """Lists the queues: what waits in them, and who serves them."""
    rows = _report("queues")
    if as_json:
        print_json([public(row) for row in rows])
        return
    columns = ("queue", "paused", "ready", "scheduled", "processing", "oldest", "workers", "slots")
    shown = [row | {"oldest": span(row["oldest_ready_s"])} for row in rows]
    table(shown, {name: name for name in columns}, "no queues: nothing waits, and no worker is alive", long=("queue",))
    for row in rows:
        if row["ready"] and not row["workers"] and not row["paused"]:
            say(f"nobody serves {row['queue']}: start {serving(row['queue'])}")


@click.command()
@click.argument("queue", metavar="QUEUE")
@json_option
def pause(queue: str, as_json: bool) -> None:
    """Stops claims from QUEUE, for all workers, within two seconds. What runs goes on running."""
    _steer(queue, True, as_json)


@click.command()
@click.argument("queue", metavar="QUEUE")
@json_option
def resume(queue: str, as_json: bool) -> None:
    """Ends a pause of QUEUE."""
    _steer(queue, False, as_json)


def _steer(queue: str, paused: bool, as_json: bool) -> None:
    async def run(client: Client, _: Settings) -> set[str]:
        known = {row["queue"] for row in await client.report("queues")}
        await (client.pause(queue) if paused else client.resume(queue))
        return known

    if queue not in with_client(run):
        say(f"no job waits in a queue {queue} and no worker serves it: is that its name? pgqueue queues lists them")
    if as_json:
        print_json({"queue": queue, "paused": paused})
    elif paused:
        click.echo(f"queue {safe(queue)} is paused; pgqueue resume {shell_argument(queue)} ends that")
    else:
        click.echo(f"queue {safe(queue)} runs")


@click.command()
@json_option
def dependencies(as_json: bool) -> None:
    """Lists what jobs depend on and had trouble with: whether its circuit breaker lets them through."""
    rows = _report("dependencies")
    if as_json:
        print_json([public(row) for row in rows])
        return
    shown = [row | {"for": span(row["open_s"]), "next try in": _next_probe(row)} for row in rows]
    columns = {name: name for name in ("dependency", "state", "for", "next try in", "job_types", "reason")}
    table(shown, columns, "no dependency has given trouble", long=("reason",))


def _next_probe(row: Mapping[str, Any]) -> str:
    left = row["next_probe_s"]
    return "-" if left is None else "as soon as a job is due" if left < 0 else span(left)


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """Lists the processes that are alive by their own word, workers and API."""
    rows = _report("workers")
    if as_json:
        print_json([public(row) for row in rows])
        return
    shown = [row | {"seen": f"{span(row['seen_s'])} ago", "state": _state(row)} for row in rows]
    columns = {name: name for name in ("id", "kind", "release", "queues", "seen", "state")}
    table(shown, columns, "no process is alive: start pgqueue worker", long=("id", "queues"))


def _state(row: Mapping[str, Any]) -> str:
    if not row["alive"]:
        return "silent"
    running = (row["detail"] or {}).get("running")
    if running:
        return f"{running} running"
    return "asleep" if row["asleep"] else "awake"


@click.command()
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--every", default="2s", show_default=True, metavar="DURATION", help="How often, with --watch.")
@json_option
def stats(watch: bool, every: str, as_json: bool) -> None:
    """Shows how many jobs are in each state, and how the last quarter of an hour went."""
    pause = seconds(every, "--every")

    async def run(client: Client, _: Settings) -> None:
        if not watch:
            _print_stats(await client.stats(), watch=False, as_json=as_json)
            return
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C, which is how this ends
            while True:
                _print_stats(await client.stats(), watch=True, as_json=as_json)
                await asyncio.sleep(max(pause, 0.1))

    with_client(run)


def _print_stats(row: Row, *, watch: bool, as_json: bool) -> None:
    if as_json and watch:
        sys.stdout.write(line_of_json(public(row)).decode() + "\n")
    elif as_json:
        print_json(public(row))
    elif watch and not on_terminal():
        click.echo("  ".join(f"{name} {value}" for name, value in _spoken(row)))
    else:
        if watch:
            click.clear()
        facts(_spoken(row))
    sys.stdout.flush()


def _spoken(row: Row) -> list[tuple[str, object]]:
    """The row for people: states first, then how it goes. Members that this release does not know are shown as they are."""
    estimated = "about " if row.get("estimated") else ""
    share = row.get("recent_failed_share")
    pairs: list[tuple[str, object]] = []
    for name, value in row.items():
        match name:
            case "estimated":
                continue
            case "completed" | "cancelled":
                pairs.append((name, f"{estimated}{value}"))
            case "recent_failed_share":
                pairs.append(("failed lately", "-" if share is None else f"{float(share):.1%}"))
            case _ if name.endswith("_s"):
                pairs.append((name.removesuffix("_s").replace("_", " "), span(value)))
            case _:
                pairs.append((name.replace("_", " "), value))
    return pairs
