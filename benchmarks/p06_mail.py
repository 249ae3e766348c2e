"""P6: from stored sign-ins to delivered mail over SMTP, by one worker process into a local sink."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import fill, span
from benchmarks.p07_costs import SIGN_IN
from benchmarks.run import Figure, Run, Sample, Verdict, median, spread
from benchmarks.server import environment
from benchmarks.workers import ROOT

CONCURRENCY = 200
CONNECTIONS = (4, 16)
"""As it comes, and more of them: an attempt holds its connection while the intent to send is made
durable."""
LEAST = 1000


@dataclass
class Sink:
    port: int
    counts: dict[str, int] = field(default_factory=dict)
    """When it has ended."""


@asynccontextmanager
async def a_sink() -> AsyncIterator[Sink]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.sink",
        cwd=ROOT,
        env=environment(""),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    sink = Sink(int(await process.stdout.readline()))
    try:
        yield sink
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
        sink.counts = json.loads(said)


async def mailed(run: Run, mails: int, connections: int) -> Sample:
    async with (
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, mails, job_type="user.signin.notification", payload=SIGN_IN)
        await workers.hold(connection)
        async with a_sink() as sink:
            settings = {
                "PGQUEUE_MODULES": "pgqueue_service.notifications",
                "MAIL_TRANSPORT": "smtp",
                "SMTP_HOST": "127.0.0.1",
                "SMTP_PORT": str(sink.port),
                "SMTP_CONNECTIONS": str(connections),
                "MAIL_FROM": "sender@example.com",
            }
            async with workers.crew(url, 1, settings, concurrency=CONCURRENCY) as crew:
                cpu = crew.cpu_seconds()
                await workers.drain(connection, crew, f"job-{mails:09}", whole=False)
                await workers.finished(connection, 60)
                cpu = crew.cpu_seconds() - cpu
        seconds = await span(connection, mails)
    if sink.counts["mails"] != mails:
        raise RuntimeError(f"{sink.counts['mails']} of {mails} mails arrived")
    return {
        "mails": mails,
        "per_second": mails / seconds,
        "connections": sink.counts["connections"],
        "worker_cpu_us": 1e6 * cpu / mails,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    mails = run.size(20_000, 3_000)
    samples = await run.take_turns(
        "P6", {f"{count} connections": partial(mailed, run, mails, count) for count in CONNECTIONS}
    )
    figure = Figure(
        "P6",
        f"{mails:,} stored sign-ins to delivered mail over SMTP, one worker process",
        samples=samples,
    )
    for count, taken in zip(CONNECTIONS, samples.values(), strict=True):
        rate, used = median(taken), max(sample["connections"] for sample in taken)
        which = f"SMTP_CONNECTIONS={count}"
        figure.verdicts += [
            Verdict(
                f"mails delivered, {which}",
                f"at least {LEAST:,} a second",
                f"{rate:,.0f}/s",
                rate >= LEAST,
            ),
            Verdict(f"connections, {which}", "reused", str(used), used <= count),
        ]
        figure.rows.append(
            {
                "side": which,
                "mails/s (median)": f"{rate:,.0f}",
                "lowest to highest": spread(taken),
                "connections": used,
                "worker CPU µs/mail": f"{median(taken, 'worker_cpu_us'):.0f}",
            }
        )
    figure.notes.append(
        f"--queue default:{CONCURRENCY}, PGQUEUE_LOG_LEVEL=warning, no TLS; the sink is a "
        "process on the same machine."
    )
    run.add(figure)
