"""P10: what an idle worker asks of the server, and whether its memory grows with the jobs that it
has done."""

import asyncio
from functools import partial

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import fill, one
from benchmarks.processes import memory_bytes
from benchmarks.run import Figure, Run, Sample, Verdict, median

MEGABYTE = 1_000_000
TOLERATED = 0.03
"""Of the memory after the first jobs: what an allocator's fragments come to, and no leak is as
small over so many jobs."""

COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def asked(run: Run, seconds: float, doorbell: bool) -> Sample:
    """Statements per minute of a worker that has nothing to do: each is a transaction of its own.
    Autovacuum is off meanwhile."""
    await run.postgres.change(autovacuum="off")
    try:
        async with (
            run.postgres.database() as url,
            await AsyncConnection.connect(url, autocommit=True) as connection,
        ):
            bell = {"PGQUEUE_DOORBELL": "on" if doorbell else "off"}
            async with workers.crew(url, 1, bell, asleep=doorbell):
                await asyncio.sleep(
                    12
                    # a session tells its counts when it ends a statement ten seconds after the last
                    # time
                )
                before = await one(connection, COMMITS)
                await asyncio.sleep(seconds)
                after = await one(connection, COMMITS)
    finally:
        await run.postgres.change(autovacuum="on")
    return {"per_minute": (after - before - 1) * 60 / seconds}


async def grown(run: Run, jobs: int) -> Sample:
    """Resident memory of a worker after `jobs` jobs, and after three times as many."""
    sizes: list[int] = []
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await workers.hold(connection)
        async with workers.crew(url, 1) as crew:
            for turn in range(3):
                first = 1 + turn * jobs
                await connection.execute("SELECT pause_queue('default', true)")
                await fill(connection, jobs, first=first)
                await workers.drain(connection, crew, f"job-{first + jobs - 1:09}")
                sizes.append(memory_bytes(crew.processes[0].pid))
    return {f"after_{turn * jobs}": size for turn, size in enumerate(sizes, 1)} | {
        "growth": sizes[-1] / sizes[0] - 1
    }


async def measure(run: Run, wanted: set[str]) -> None:
    seconds, jobs = run.size(60, 20), run.size(100_000, 20_000)
    samples = await run.take_turns(
        "P10",
        {
            "doorbell": partial(asked, run, seconds, True),
            "polling": partial(asked, run, seconds, False),
        },
        rounds=1,
    )
    samples |= await run.take_turns("P10", {"memory": partial(grown, run, jobs)}, rounds=1)
    figure = Figure("P10", "An idle worker, and one that has done much", samples=samples)
    rate, growth = median(samples["doorbell"], "per_minute"), median(samples["memory"], "growth")
    figure.verdicts += [
        Verdict("statements a minute, with the doorbell", "at most 60", f"{rate:.0f}", rate <= 60),
        Verdict(
            f"memory from {jobs:,} to {3 * jobs:,} jobs",
            f"no growth (over {TOLERATED:.0%})",
            f"{growth:+.1%}",
            growth <= TOLERATED,
        ),
    ]
    figure.rows = [
        {"what": "statements a minute, doorbell", "value": f"{rate:.0f}"},
        {
            "what": "statements a minute, polling alone",
            "value": f"{median(samples['polling'], 'per_minute'):.0f}",
        },
        *(
            {
                "what": f"resident memory {name.replace('_', ' ')} jobs",
                "value": f"{value / MEGABYTE:.1f} MB",
            }
            for name, value in samples["memory"][0].items()
            if name.startswith("after")
        ),
    ]
    run.add(figure)
