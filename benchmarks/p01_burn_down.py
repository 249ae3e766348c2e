"""P1 and P2: burn-down of stored no-op jobs by one, two and four worker processes, against Postgres
alone.

Every worker process is started beforehand and held back by a paused queue. Seconds are the table's:
from the first claim to the last ack. The rows are kept.
"""

from functools import partial
from typing import Any

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.bare import CLIENTS, bare
from benchmarks.jobs import fill, span
from benchmarks.run import Figure, Measure, Run, Sample, Verdict, median, ratio, spread

PROCESSES = (1, 2, 4)


async def burn_down(run: Run, jobs: int, processes: int) -> Sample:
    """One drain: jobs per second, and the processor time that a job costs on either side."""
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, jobs)
        await workers.hold(connection)
        async with workers.crew(url, processes) as crew:
            server, python = run.postgres.cpu_seconds(), crew.cpu_seconds()
            outside = await workers.drain(connection, crew, f"job-{jobs:09}")
            server, python = run.postgres.cpu_seconds() - server, crew.cpu_seconds() - python
        seconds = await span(connection, jobs)
    return {
        "jobs": jobs,
        "seconds": seconds,
        "seconds_outside": outside,
        "per_second": jobs / seconds,
        "server_cpu_us": 1e6 * server / jobs,
        "worker_cpu_us": 1e6 * python / jobs,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    """P1, P2 or both, from the same rounds."""
    jobs = run.size(100_000, 40_000)
    sides: dict[str, Measure] = {}
    if wanted & {"p1", "bare"}:
        sides |= {
            f"bare, {count} clients": partial(bare, run.postgres, jobs, count) for count in CLIENTS
        }
    processes = PROCESSES if "p2" in wanted else (1,) if "p1" in wanted else ()
    sides |= {
        f"{count} worker processes": partial(burn_down, run, jobs, count) for count in processes
    }
    samples = await run.take_turns("p1", sides)
    if wanted & {"p1", "bare"}:
        run.add(_against_bare(samples, jobs))
    if "p2" in wanted:
        run.add(_more_processes(samples, jobs))


def _against_bare(samples: dict[str, list[Sample]], jobs: int) -> Figure:
    figure = Figure(
        "P1",
        f"Burn-down of {jobs:,} stored no-op jobs, one worker process, rows kept",
        samples=samples,
    )
    limit, best = max((median(samples[name]), name) for name in samples if name.startswith("bare"))
    figure.rows = _rows(samples, samples[best])
    if (name := "1 worker processes") in samples:
        part = ratio(samples[name], samples[best])
        value = f"{part:.2f} ({median(samples[name]):,.0f} of {limit:,.0f} jobs/s; {best})"
        figure.verdicts.append(
            Verdict("one process against bare", "at least 0.6", value, part >= 0.6)
        )
    figure.notes += [
        f"Worker settings: --queue default:{workers.CONCURRENCY}, "
        + ", ".join(
            f"{name}={value}" for name, value in workers.FAST.items() if "MODULES" not in name
        )
        + "; everything else as it comes.",
        (
            "Bare is pgbench with the engine's own claim and ack, 500 jobs each; it receives ids "
            "and leases and no payload."
        ),
    ]
    return figure


def _more_processes(samples: dict[str, list[Sample]], jobs: int) -> Figure:
    figure = Figure("P2", f"The same {jobs:,} jobs with more processes", samples=samples)
    taken = {count: samples[f"{count} worker processes"] for count in PROCESSES}
    figure.rows = _rows(
        {name: samples[name] for name in samples if name.endswith("processes")}, taken[1]
    )
    for count in PROCESSES[1:]:
        part = ratio(taken[count], taken[1])
        figure.verdicts.append(
            Verdict(f"{count} processes against one", "never slower", f"{part:.2f}", part >= 1.0)
        )
    figure.curves.append(
        {
            "name": "processes",
            "title": f"Burn-down of {jobs:,} jobs",
            "x": "worker processes",
            "y": "jobs/s",
            "lines": {"pgqueue": [[count, median(one)] for count, one in taken.items()]},
        }
    )
    return figure


def _rows(samples: dict[str, list[Sample]], base: list[Sample]) -> list[dict[str, Any]]:
    return [
        {
            "side": name,
            "jobs/s (median)": f"{median(taken):,.0f}",
            "lowest to highest": spread(taken),
            "ratio": f"{ratio(taken, base):.2f}",
            "server CPU µs/job": f"{median(taken, 'server_cpu_us'):.1f}",
            "worker CPU µs/job": f"{median(taken, 'worker_cpu_us'):.1f}"
            if "worker_cpu_us" in taken[0]
            else "",
        }
        for name, taken in samples.items()
    ]
