"""P5: HTTP enqueue of sign-ins over 32 connections, beside the same application answering without a
database.

One API process (`pgqueue api`) and one process of callers; both sides have the same.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from psycopg import AsyncConnection

from benchmarks.jobs import one
from benchmarks.processes import cpu_seconds
from benchmarks.run import Figure, Run, Sample, Verdict, median, ratio, spread
from benchmarks.server import environment
from benchmarks.workers import ROOT

CONNECTIONS = 32
APPS = {
    "with the database": "pgqueue_service.app:create_app",
    "without": "benchmarks.answering:create_app",
}


@asynccontextmanager
async def an_api(url: str, app: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A process of `pgqueue api`, and its port, read from its first line."""
    settings = {"PGQUEUE_APP": app, "PGQUEUE_LOG_FORMAT": "json", "PGQUEUE_DRAIN": "0s"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from pgqueue_service.cli.api import api; api()", "--host",
        "127.0.0.1", "--port", "0",
        cwd=ROOT, env=environment(url, settings), stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while line := (await process.stderr.readline()).decode():
            if found := re.search(r'"port": ?(\d+)', line):
                break
        else:
            raise RuntimeError("the API ended before it listened")
        reader = asyncio.create_task(process.stderr.read())
        yield process, int(found[1])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
    await reader


async def called(run: Run, requests: int, app: str) -> Sample:
    """One round of calls."""
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        async with an_api(url, app) as (api, port):
            callers = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.callers", str(port), str(CONNECTIONS),
                str(requests),
                cwd=ROOT, env=environment(url), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            cpu = cpu_seconds(api.pid)
            said, _ = await callers.communicate()
            cpu = cpu_seconds(api.pid) - cpu
            if callers.returncode != 0:
                raise RuntimeError("the callers failed; why stands above")
        stored = await one(connection, "SELECT count(*) FROM job_logs")
    if stored != (round(requests * 1.1) if app == APPS["with the database"] else 0):
        raise RuntimeError(f"{stored} jobs were stored")
    return dict(json.loads(said)) | {"api_cpu_us": 1e6 * cpu / (requests * 1.1)}


async def measure(run: Run, wanted: set[str]) -> None:
    requests = run.size(20_000, 4_000)
    samples = await run.take_turns(
        "P5", {side: partial(called, run, requests, app) for side, app in APPS.items()}
    )
    figure = Figure(
        "P5", f"HTTP enqueue, {CONNECTIONS} connections, {requests:,} sign-ins", samples=samples
    )
    part = ratio(samples["with the database"], samples["without"])
    value = f"{part:.2f} ({median(samples['with the database']):,.0f} requests/s)"
    figure.verdicts.append(
        Verdict("with the database against without", "at least 0.7", value, part >= 0.7)
    )
    figure.rows = [
        {
            "side": side,
            "requests/s (median)": f"{median(taken):,.0f}",
            "lowest to highest": spread(taken),
            "ratio": f"{ratio(taken, samples['without']):.2f}",
            "p50 ms": f"{median(taken, 'p50_ms'):.1f}",
            "p99 ms": f"{median(taken, 'p99_ms'):.1f}",
            "API CPU µs/request": f"{median(taken, 'api_cpu_us'):.0f}",
        }
        for side, taken in samples.items()
    ]
    figure.notes.append(
        "One API process with its settings as they come (a limit of 10 an hour per user, "
        "counted under its lock; a pool of 10 "
        "connections). Callers, API and Postgres share this machine."
    )
    run.add(figure)
