"""`pgqueue check`: alert thresholds, for cron and monitoring."""

import sys
from typing import Any

import click
import msgspec

from pgqueue.cli.output import print_json, span, table
from pgqueue.cli.runner import NOT_SO, json_option, with_client
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings


class Check(msgspec.Struct, frozen=True):
    """One threshold: `value` above it is crossed. `value` None: nothing to measure lately."""

    name: str
    value: float | None
    threshold: float
    crossed: bool
    advice: str


ADVICE = {
    "dead": "pgqueue dlq list shows why; correct the cause, then run pgqueue dlq retry",
    "failures": "pgqueue dlq errors and sql/monitoring/retrying_jobs.sql say what goes wrong",
    "p99": "sql/monitoring/slow_jobs.sql says where the time goes; more workers or slots",
    "depth": "pgqueue queues says where; more workers, or more slots in PGQUEUE_QUEUES",
    "unserved": "pgqueue queues says which queue; start pgqueue worker --queue NAME:50",
    "disagreements": (
        "processes with different declarations of a type: finish the rollout; pgqueue workers "
        "lists them"
    ),
}
"""What each check is called, and what to do when it is crossed."""


@click.command()
@click.option(
    "--dead",
    type=float,
    default=10,
    show_default=True,
    help="Most jobs in the dead-letter queue.",
)
@click.option(
    "--failures",
    type=float,
    default=5,
    show_default=True,
    help="Most recent jobs that failed, in percent.",
)
@click.option(
    "--p99",
    type=float,
    default=10,
    show_default=True,
    help="Longest time (s) from due to done of 99 % of recent jobs.",
)
@click.option(
    "--depth",
    type=float,
    default=1000,
    show_default=True,
    help="Most jobs that are due and wait.",
)
@click.option(
    "--unserved",
    type=float,
    default=0,
    show_default=True,
    help="Most due jobs without a live worker.",
)
@click.option(
    "--disagreements",
    type=float,
    default=0,
    show_default=True,
    help="Most job types that live processes declare differently.",
)
@json_option
def check(as_json: bool, **thresholds: float) -> None:
    """Compare the health of the queue with thresholds; exits 1 when one is crossed."""

    async def run(client: AsyncClient, _: Settings) -> dict[str, Any]:
        return (await client.report("health"))[0]

    checks = judge(with_client(run), thresholds)
    crossed = any(one.crossed for one in checks)
    if as_json:
        print_json({"ok": not crossed, "checks": [msgspec.structs.asdict(one) for one in checks]})
    else:
        table(
            [_spoken(one) for one in checks],
            {
                "name": "check",
                "value": "value",
                "threshold": "above",
                "state": "state",
                "advice": "what to do",
            },
            "",
            long=("advice",),
        )
    if crossed:
        sys.exit(NOT_SO)


def judge(row: dict[str, Any], thresholds: dict[str, float]) -> list[Check]:
    """Pure: the row of sql/monitoring/health.sql against the thresholds, failures in percent."""
    share = row["failed_share"]
    values = row | {"failures": None if share is None else float(share) * 100, "p99": row["p99_s"]}
    checks = []
    for name, threshold in thresholds.items():
        value = None if values[name] is None else round(float(values[name]), 3)
        crossed = value is not None and value > threshold
        checks.append(Check(name, value, threshold, crossed, ADVICE[name]))
    return sorted(checks, key=lambda one: list(ADVICE).index(one.name))


def _spoken(one: Check) -> dict[str, str]:
    def written(value: float | None) -> str:
        if value is None:
            return "-"
        return (
            span(value)
            if one.name == "p99"
            else f"{value:g}%"
            if one.name == "failures"
            else f"{value:g}"
        )

    return {
        "name": one.name,
        "value": written(one.value),
        "threshold": written(one.threshold),
        "state": "CROSSED" if one.crossed else "ok",
        "advice": one.advice if one.crossed else "",
    }
