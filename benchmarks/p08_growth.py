"""P8: whether it stays as fast with more in the table: ready jobs, jobs for later, finished rows.

Two looks at each table: the engine's claims and acks in a loop that stores as many new jobs as it
takes, so that the backlog stays what it is; and a worker process that drains. Each table is made
once and serves all rounds.
"""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import fill, one, settled
from benchmarks.loop import BATCH, Loop, first_claim
from benchmarks.run import Figure, Measure, Run, Sample, Verdict, median, percentile, ratio, spread
from pgqueue.database.worker_connection import load

SMALL = 1_000
WARM = 10
"""Turns in which plans and pages are fetched, and which do not count."""

LAST = """
SELECT job_id, run_after FROM job_logs WHERE queue = 'default' AND priority = 5
  AND processed_at IS NULL
 ORDER BY run_after, id OFFSET %s LIMIT 1
"""

DRAINED = """
SELECT count(*) / extract(epoch FROM max(processed_at) - min(started_at))::float8
  FROM job_logs WHERE processed_at > %s AND run_after <= %s
"""


async def steady(url: str, turns: int, numbers: Callable[[], int]) -> Sample:
    """A loop whose backlog stays as it is."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await settled(connection)
    async with Loop(url, first=numbers()) as loop:
        for _ in range(turns + WARM):
            await loop.turn(refill=True)
        claims = loop.claims.times[WARM:]
        return {
            "per_second": loop.rate(WARM),
            "claim_p50_ms": 1000 * percentile(claims, 50),
            "claim_p99_ms": 1000 * percentile(claims, 99),
        }


async def rows_read(url: str) -> int:
    """Rows of job_logs that the scans of a first claim read, wanted or not, by the plan as it was
    carried out."""
    loop = Loop(url)
    link = loop.claims
    connection = await link.connect()
    async with connection.transaction(force_rollback=True):
        text: Any = f"EXPLAIN (ANALYZE, FORMAT JSON) {load('claim_jobs')}"
        cursor = await connection.execute(text, first_claim(url, BATCH))
        plan = (await cursor.fetchall())[0][0]
    await link.close()
    return sum(
        _read(node) for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "job_logs"
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _read(node: dict[str, Any]) -> int:
    scanned = (
        node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        if "Scan" in node["Node Type"]
        else 0
    )
    return int(scanned * node["Actual Loops"])


async def drained(url: str, jobs: int, numbers: Callable[[], int]) -> Sample:
    """A worker process takes `jobs` from the front, as many having been put to the end before."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await fill(connection, jobs, first=numbers(), since="0 s")
        job_id, run_after = (await (await connection.execute(LAST, [jobs - 1])).fetchall())[0]
        await workers.hold(connection)
        async with workers.crew(url, 1) as crew:
            moment = await one(connection, "SELECT clock_timestamp()")
            await workers.drain(connection, crew, job_id, whole=False)
        rate = await one(connection, DRAINED, [moment, run_after])
    return {"jobs": jobs, "per_second": float(rate)}


async def measure(run: Run, wanted: set[str]) -> None:
    middle, large = run.size(100_000, 20_000), run.size(1_000_000, 60_000)
    finished = run.size(5_000_000, 100_000)
    sizes: dict[str, dict[str, int]] = {
        f"{SMALL:,} ready": {"ready": SMALL},
        f"{middle:,} ready": {"ready": middle},
        f"{large:,} ready": {"ready": large},
        f"{large:,} for later": {"ready": SMALL, "later": large},
        f"{finished:,} finished": {"ready": SMALL, "finished": finished},
    }
    figure = Figure("P8", "Growth of the table")
    numbers = iter(range(400_000_000, 900_000_000, 200_000))
    async with AsyncExitStack() as stack:
        urls = {name: await stack.enter_async_context(run.postgres.database()) for name in sizes}
        for name, size in sizes.items():
            run.say(f"P8: making a table with {name}")
            await _make(urls[name], **size)
            read = await rows_read(urls[name])
            figure.samples[f"rows read, {name}"] = [{"rows": read}]
            most = f"at most {2 * BATCH + 10:,}"
            figure.verdicts.append(
                Verdict(
                    f"rows read by a claim of {BATCH}, {name}",
                    most,
                    f"{read:,}",
                    read <= 2 * BATCH + 10,
                )
            )
        # Whether a row was stored before or after the last checkpoint must not count for how fast
        # it is claimed.
        await run.postgres.change(full_page_writes="off")
        await _steady(run, figure, urls, numbers.__next__)
        await run.postgres.change(full_page_writes="on")
        await _drains(run, figure, urls, sizes, numbers.__next__)
    run.add(figure)


async def _make(url: str, ready: int, later: int = 0, finished: int = 0) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        if finished:
            await fill(
                connection, finished, first=200_000_000, since="2 h", done=True, settle=False
            )
        if later:
            await fill(connection, later, first=300_000_000, since="-1 d", settle=False)
        await fill(connection, ready)


async def _steady(
    run: Run, figure: Figure, urls: dict[str, str], numbers: Callable[[], int]
) -> None:
    turns = run.size(300, 60)
    sides: dict[str, Measure] = {
        name: partial(steady, url, turns, numbers) for name, url in urls.items()
    }
    samples = await run.take_turns("P8", sides)
    small = next(iter(samples.values()))
    figure.samples |= samples
    for name, taken in samples.items():
        rate, p99 = ratio(taken, small), 1 / ratio(taken, small, "claim_p99_ms")
        figure.rows.append(
            {
                "side": name,
                "jobs/s (median)": f"{median(taken):,.0f}",
                "lowest to highest": spread(taken),
                "ratio": f"{rate:.2f}",
                "claim p50 ms": f"{median(taken, 'claim_p50_ms'):.2f}",
                "claim p99 ms": f"{median(taken, 'claim_p99_ms'):.2f}",
            }
        )
        if taken is not small:
            wanted = f"at least 0.9 of {SMALL:,} ready"
            figure.verdicts.append(
                Verdict(f"claim p99, {name}", wanted, f"{p99:.2f} (its inverse)", p99 >= 0.9)
            )
    figure.notes.append(
        f"The rate is that of claims and acks of {BATCH} in turn, one connection each, {turns} "
        "turns, with "
        "full_page_writes off; storing new jobs in between is outside of it. The drains are a "
        "worker process's, all settings on."
    )


async def _drains(
    run: Run,
    figure: Figure,
    urls: dict[str, str],
    sizes: dict[str, dict[str, int]],
    numbers: Callable[[], int],
) -> None:
    jobs = run.size(50_000, 10_000)
    samples = await run.take_turns(
        "P8 drain", {name: partial(drained, url, jobs, numbers) for name, url in urls.items()}
    )
    figure.samples |= {f"drain, {name}": taken for name, taken in samples.items()}
    small = next(iter(samples.values()))
    points = []
    for name, taken in samples.items():
        part = ratio(taken, small)
        if taken is not small:
            figure.verdicts.append(
                Verdict(f"a worker's drain, {name}", "at least 0.9", f"{part:.2f}", part >= 0.9)
            )
        side = f"a worker takes {jobs:,}: {name} + {jobs:,}"
        figure.rows.append(
            {
                "side": side,
                "jobs/s (median)": f"{median(taken):,.0f}",
                "lowest to highest": spread(taken),
                "ratio": f"{part:.2f}",
            }
        )
        if len(sizes[name]) == 1:
            points.append([sizes[name]["ready"] + jobs, median(taken)])
    figure.curves.append(
        {
            "name": "backlog",
            "title": "Drain rate of one worker process against backlog",
            "x": "jobs waiting",
            "y": "jobs/s",
            "log": True,
            "lines": {"pgqueue": points},
        }
    )
