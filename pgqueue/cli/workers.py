"""`pgqueue workers`: API processes and workers."""

from collections.abc import Mapping
from typing import Any

import click

from pgqueue.cli.output import print_json, public, span, table
from pgqueue.cli.queues import _report
from pgqueue.cli.runner import json_option


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """List the processes that are alive, workers and API."""
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
