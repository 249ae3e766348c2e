"""`pgqueue stats`: numbers of jobs by state, and how fast they are done."""

import asyncio
import contextlib
import sys

import click
from msgspec.structs import asdict

from pgqueue.cli.output import as_json as line_of_json
from pgqueue.cli.output import facts, on_terminal, print_json, public, span
from pgqueue.cli.queues import Row
from pgqueue.cli.runner import json_option, seconds, with_client
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings


@click.command()
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--every", default="2s", show_default=True, metavar="DURATION", help="Interval of --watch."
)
@json_option
def stats(watch: bool, every: str, as_json: bool) -> None:
    """Count the jobs in each state, and show the results of the last 15 minutes."""
    pause = seconds(every, "--every")

    async def run(client: AsyncClient, _: Settings) -> None:
        if not watch:
            _print_stats(asdict(await client.stats()), watch=False, as_json=as_json)
            return
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C, which is how this ends
            while True:
                _print_stats(asdict(await client.stats()), watch=True, as_json=as_json)
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
    """The row for people: states first, then how it goes. Members that this release does not know
    are shown as they are."""
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
