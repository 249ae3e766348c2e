"""P3: pick-up by an idle worker, from the enqueue call to the start of the handler, 200 jobs 20 ms
apart.

Both ends are read from the machine's monotonic clock, which all its processes share.
"""

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import PAYLOAD
from benchmarks.producers import INSERT, values
from benchmarks.run import Figure, Measure, Run, Sample, Verdict, percentile
from benchmarks.tasks import stamp
from pgqueue import AsyncClient

APART = 0.02
POLL = 0.5
"""The poll interval as it comes, in seconds."""


async def pick_ups(run: Run, jobs: int, doorbell: bool) -> Sample:
    """Milliseconds of each job, in order."""
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "stamps"
        bell = {
            "PGQUEUE_DOORBELL": "on" if doorbell else "off",
            "PGQUEUE_BENCH_STAMPS": str(stamps),
        }
        async with run.postgres.database() as url, workers.crew(url, 1, bell, asleep=doorbell):
            async with AsyncClient.open(url, doorbell=doorbell) as client:
                began = await _enqueue(client, jobs)
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                await workers.finished(connection, 60)
        started = {
            job_id: int(moment)
            for job_id, moment in map(str.split, stamps.read_text().splitlines())
        }
    waits = [(started[job_id] - moment) / 1e6 for job_id, moment in began.items()]
    return {
        "p50_ms": percentile(waits, 50),
        "p99_ms": percentile(waits, 99),
        "max_ms": max(waits),
        "milliseconds": waits,
    }


async def _enqueue(client: AsyncClient, jobs: int) -> dict[str, int]:
    began: dict[str, int] = {}
    await client.enqueue(stamp, PAYLOAD, job_id="warm-0")
    await asyncio.sleep(0.2)
    origin = time.monotonic()
    for number in range(jobs):
        await asyncio.sleep(max(0.0, origin + number * APART - time.monotonic()))
        job_id = f"job-{number}"
        began[job_id] = time.monotonic_ns()
        await client.enqueue(stamp, PAYLOAD, job_id=job_id)
    return began


async def two_commits(run: Run, jobs: int) -> Sample:
    """The floor: an INSERT and an UPDATE, each made durable, one after the other, as far apart as
    the jobs."""
    waits = []
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        for number in range(jobs):
            await asyncio.sleep(APART)
            began = time.perf_counter()
            await connection.execute(INSERT, values(number), prepare=True)
            await connection.execute(
                "UPDATE job_logs SET locked_by = 'w' WHERE job_id = %s",
                [f"job-{number:09}"],
                prepare=True,
            )
            waits.append((time.perf_counter() - began) * 1000)
    return {
        "p50_ms": percentile(waits, 50),
        "p99_ms": percentile(waits, 99),
        "max_ms": max(waits),
        "milliseconds": waits,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    jobs = 200
    sides: dict[str, Measure] = {
        "doorbell": partial(pick_ups, run, jobs, True),
        "polling": partial(pick_ups, run, jobs, False),
        "two commits": partial(two_commits, run, jobs),
    }
    samples = await run.take_turns("P3", sides)
    figure = Figure(
        "P3", f"Pick-up by an idle worker: {jobs} jobs, {APART * 1000:g} ms apart", samples=samples
    )
    every = {
        side: [wait for sample in taken for wait in sample["milliseconds"]]
        for side, taken in samples.items()
    }
    figure.rows = [_row(side, waits) for side, waits in every.items()]
    middle, last, polled = (
        percentile(every["doorbell"], 50),
        percentile(every["doorbell"], 99),
        percentile(every["polling"], 99),
    )
    figure.verdicts += [
        Verdict("p50 with the doorbell", "at most 2 ms", f"{middle:.2f} ms", middle <= 2),
        Verdict("p99 with the doorbell", "at most 5 ms", f"{last:.2f} ms", last <= 5),
        Verdict(
            "p99 with polling alone",
            f"at most {POLL * 1000 + 20:g} ms",
            f"{polled:.0f} ms",
            polled <= POLL * 1000 + 20,
        ),
    ]
    figure.notes.append(
        "Two commits: an INSERT and an UPDATE of one row, each awaited, by one connection. A "
        "pick-up has as many that wait for "
        "the disk (the enqueue and the claim), so that it cannot be shorter than that here."
    )
    run.add(figure)


def _row(side: str, waits: list[float]) -> dict[str, Any]:
    return {"side": side, "jobs": len(waits)} | {
        f"p{p} ms": f"{percentile(waits, p):.2f}" for p in (50, 90, 99, 100)
    }
