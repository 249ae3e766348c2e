"""Why a job that could run does not: what is in its way now, and what ends that."""

import contextlib
from typing import Any

import psycopg

from pgqueue.cli.dlq_filters import clock
from pgqueue.cli.output import moment, span
from pgqueue.client import AsyncClient
from pgqueue.job import JobView, Status
from pgqueue.masking import mask
from pgqueue.printable import shell_argument, shell_word

Row = dict[str, Any]


def serving(queue: str) -> str:
    """The command that starts a worker for a queue."""
    return f"pgqueue worker --queue {shell_word(f'{queue}:50')}"


async def waits_for(client: AsyncClient, view: JobView) -> list[str]:
    """In sentences; empty for a job that runs or has ended, and where this role may not see the
    reasons."""
    if view.status not in (Status.ENQUEUED, Status.FAILED):
        return []
    causes = []
    if view.run_after > await clock(client):
        causes.append(f"its time: {moment(view.run_after)}")
    with contextlib.suppress(psycopg.Error):
        queues = await client.report("queues")
        causes += of_queue(
            view.queue, next((row for row in queues if row["queue"] == view.queue), {})
        )
        causes += [
            sentence
            for row in await client.report("dependencies")
            for sentence in of_dependency(view, row)
        ]
    return causes or ["a free slot: nothing else is in its way"]


def of_queue(name: str, row: Row) -> list[str]:
    if row.get("paused"):
        return [f"its queue, which is paused: pgqueue resume {shell_argument(name)} ends that"]
    if not row.get("workers"):
        return [f"a worker: none serves the queue {name}; start {serving(name)}"]
    return []


def of_dependency(view: JobView, row: Row) -> list[str]:
    if row["state"] == "closed" or view.job_type not in row["job_types"]:
        return []
    left = row["next_probe_s"]
    when = (
        "is being tried"
        if left is None
        else f"is tried again {'now' if left <= 0 else 'in ' + span(left)}"
    )
    reason = mask(row["reason"] or "no reason is known")
    return [f"{row['dependency']}, which is down for {span(row['open_s'])} and {when}: {reason}"]
