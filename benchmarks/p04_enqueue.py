"""P4: what enqueueing costs beside psycopg with a bare INSERT or COPY of the same columns, into the
same table.

Every producer is a process of its own; server and table are the same, and each measurement has a
fresh database.
"""

import asyncio
import json
import sys
from functools import partial
from typing import Any

from psycopg import AsyncConnection

from benchmarks.jobs import one
from benchmarks.run import Figure, Run, Sample, Verdict, median, ratio, spread
from benchmarks.server import environment
from benchmarks.tasks import noop
from benchmarks.workers import ROOT
from pgqueue.database.job_types import declarations, publish
from pgqueue.settings import Settings

BARE = {"client-one": "psycopg-one", "client-20": "psycopg-20", "client-bulk": "copy-bulk"}
SAID = {
    "client-one": "one client, each awaited",
    "client-20": "20 at once in one process",
    "client-bulk": "in bulk",
    "psycopg-one": "psycopg, one connection, prepared INSERT",
    "psycopg-one-sync": "the same, synchronous psycopg",
    "psycopg-20": "20 psycopg connections, prepared INSERT",
    "copy-bulk": "COPY",
}


async def produce(run: Run, way: str, jobs: int) -> Sample:
    """One producer process on a fresh database."""
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        settings = Settings(database_url=url)
        await publish(connection, declarations([noop], settings))
        server = run.postgres.cpu_seconds()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.producers", way, str(jobs), cwd=ROOT,
            env=environment(url),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the producer failed: {way}")
        server = run.postgres.cpu_seconds() - server
        count = await one(connection, "SELECT count(*) FROM job_logs WHERE job_id LIKE 'job-0%%'")
        if count != jobs:
            raise RuntimeError(f"{way} stored {count} of {jobs} jobs")
    answer = json.loads(said)
    return {
        "jobs": jobs,
        "seconds": answer["seconds"],
        "per_second": jobs / answer["seconds"],
        "client_cpu_us": 1e6 * answer["cpu_seconds"] / jobs,
        "server_cpu_us": 1e6 * server / jobs,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    sizes = {"one": run.size(10_000, 2_000), "20": run.size(30_000, 6_000), "bulk": 20_000}
    figure = Figure("P4", "Enqueue")
    for kind, jobs in sizes.items():
        ways = [way for way in SAID if f"-{kind}" in way]
        samples = await run.take_turns(
            "P4", {way: partial(produce, run, way, jobs) for way in ways}
        )
        figure.samples |= samples
        bare = next(name for name in ways if name == BARE[f"client-{kind}"])
        figure.rows += [_row(name, jobs, samples[name], samples[bare]) for name in ways]
    figure.verdicts += [
        _verdict(figure, "client-one", "at least 0.8 of a bare prepared INSERT", 0.8),
        _verdict(figure, "client-20", "more than 20 psycopg connections", 1.0),
        _verdict(figure, "client-bulk", "at least 0.6 of bare COPY", 0.6),
    ]
    figure.notes += [
        "The bare sides insert the same columns into the same table with its indexes and "
        "CHECKs; they know no duplicates, "
        "no types and no limits.",
        (
            "The client has its settings as they come (a pool of 10 connections); all producers "
            "run on uvloop where it is installed."
        ),
        "psycopg is asynchronous, as the client is; the synchronous one is shown, not judged.",
    ]
    run.add(figure)


def _row(way: str, jobs: int, samples: list[Sample], base: list[Sample]) -> dict[str, Any]:
    return {
        "side": SAID[way],
        "jobs": f"{jobs:,}",
        "jobs/s (median)": f"{median(samples):,.0f}",
        "lowest to highest": spread(samples),
        "ratio": f"{ratio(samples, base):.2f}",
        "client CPU µs/job": f"{median(samples, 'client_cpu_us'):.1f}",
        "server CPU µs/job": f"{median(samples, 'server_cpu_us'):.1f}",
    }


def _verdict(figure: Figure, way: str, wanted: str, least: float) -> Verdict:
    part = ratio(figure.samples[way], figure.samples[BARE[way]])
    met = part > least if least == 1.0 else part >= least
    return Verdict(
        SAID[way], wanted, f"{part:.2f} ({median(figure.samples[way]):,.0f} jobs/s)", met
    )
