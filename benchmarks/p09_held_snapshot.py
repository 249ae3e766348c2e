"""P9: a snapshot that another session holds open while 200,000 jobs go through: nothing that is
done can be cleaned away.

Judged by a worker process that drains them, over its last quarter. Shown beside it: what each claim
takes, in a loop of claims and acks with the engine's cursor and, as in a queue without one,
beginning at the lane's start every time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import fill, one, span
from benchmarks.loop import Loop
from benchmarks.run import Figure, Run, Sample, Verdict, median, ratio, spread

LAST_QUARTER = """
WITH numbered AS (SELECT processed_at, row_number() OVER (ORDER BY processed_at, id) AS nth,
  count(*) OVER () AS jobs FROM job_logs)
SELECT (count(*) / extract(epoch FROM max(processed_at) - min(processed_at)))::float8 FROM numbered
 WHERE nth > jobs * 3 / 4
"""


@asynccontextmanager
async def snapshot(url: str, held: bool) -> AsyncIterator[None]:
    """A session in REPEATABLE READ that has read something, and stays."""
    if not held:
        yield
        return
    async with await AsyncConnection.connect(url) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT pg_current_xact_id()")
        yield
        await connection.rollback()


async def drained(run: Run, jobs: int, held: bool) -> Sample:
    """One worker process: its rate over all, and over the last quarter."""
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, jobs)
        await workers.hold(connection)
        async with workers.crew(url, 1) as crew, snapshot(url, held):
            await workers.drain(connection, crew, f"job-{jobs:09}", whole=False)
            await workers.finished(connection, 60)
        last = await one(connection, LAST_QUARTER)
        return {
            "jobs": jobs,
            "per_second": jobs / await span(connection, jobs),
            "last_quarter": last,
        }


async def pumped(run: Run, jobs: int, held: bool, cursor: bool) -> Sample:
    """Jobs stored, claimed and acked in turn, a batch at a time: what claims take as more and more
    has been done."""
    step = max(jobs // 20, 1)
    points: list[dict[str, float]] = []
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, 1_000)
        async with Loop(url, cursor=cursor) as loop:
            for _ in range(4):
                await loop.turn(refill=True)
            async with snapshot(url, held):
                done = begin = 0
                while done < jobs:
                    first = len(loop.counts)
                    while begin < step and done + begin < jobs:
                        begin += await loop.turn(refill=True)
                    done, counted, begin = done + begin, begin, 0
                    claims = 1e6 * sum(loop.claims.times[first:]) / counted
                    points.append(
                        {"done": done, "claim_us": claims, "per_second": loop.rate(first)}
                    )
    return {
        "claim_us": points[-1]["claim_us"],
        "per_second": points[-1]["per_second"],
        "points": points,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    jobs = run.size(200_000, 40_000)
    samples = await run.take_turns(
        "P9",
        {
            "free": partial(drained, run, jobs, False),
            "snapshot held": partial(drained, run, jobs, True),
        },
    )
    figure = Figure("P9", f"A snapshot held open while {jobs:,} jobs go through", samples=samples)
    part = ratio(samples["snapshot held"], samples["free"], "last_quarter")
    figure.verdicts.append(
        Verdict(
            "a worker's rate over the last quarter",
            "at least 0.95 of the rate without",
            f"{part:.2f}",
            part >= 0.95,
        )
    )
    for name, taken in samples.items():
        figure.rows.append(
            {
                "side": f"a worker drains, {name}",
                "jobs/s (median)": f"{median(taken):,.0f}",
                "lowest to highest": spread(taken),
                "jobs/s of the last quarter": f"{median(taken, 'last_quarter'):,.0f}",
                "ratio": f"{ratio(taken, samples['free'], 'last_quarter'):.2f}",
            }
        )
    await _pump(run, figure, jobs)
    run.add(figure)


async def _pump(run: Run, figure: Figure, jobs: int) -> None:
    sides = {
        "free": partial(pumped, run, jobs, False, True),
        "held": partial(pumped, run, jobs, True, True),
        "held, no cursor": partial(pumped, run, jobs // 2, True, False),
    }
    samples = await run.take_turns("P9 pump", sides, rounds=max(1, run.rounds // 3))
    figure.samples |= {f"pump, {name}": taken for name, taken in samples.items()}
    for name, taken in samples.items():
        figure.rows.append(
            {
                "side": f"claims and acks in turn, {name}",
                "jobs/s of the last twentieth": f"{median(taken):,.0f}",
                "claim µs/job at the end": f"{median(taken, 'claim_us'):.1f}",
            }
        )
    for key, title, unit in (
        ("claim_us", "What a claim takes under a held snapshot", "µs/job"),
        ("per_second", "Throughput under a held snapshot", "jobs/s"),
    ):
        figure.curves.append(_curve(f"held_{key}", title, unit, key, samples))


def _curve(
    name: str, title: str, unit: str, key: str, samples: dict[str, list[Sample]]
) -> dict[str, Any]:
    lines = {
        side: [[point["done"], point[key]] for point in taken[0]["points"]]
        for side, taken in samples.items()
    }
    return {"name": name, "title": title, "x": "jobs done", "y": unit, "lines": lines}
