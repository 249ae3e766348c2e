"""The peers, one after the other in every round: burn-down, bulk and single enqueue, pick-up, and a
held snapshot."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from benchmarks.p09_held_snapshot import snapshot
from benchmarks.peers import redis
from benchmarks.peers.catalog import OURSELVES, PEERS, Peer
from benchmarks.peers.crew import Failed, Said, call, unfinished, until, workers
from benchmarks.peers.install import NotInstalled, installed
from benchmarks.peers.table import figure
from benchmarks.run import Measure, Run, Sample, percentile

SINGLE = 1_000
WATCHED = 200


def _log(run: Run, peer: Peer) -> Path:
    """What its programs complain about."""
    return run.out / "peers" / f"{peer.program.partition('.')[0]}.log"


@asynccontextmanager
async def store(run: Run, peer: Peer, log: Path) -> AsyncIterator[str]:
    """An empty store of the peer's kind, set up by the peer."""
    if peer.store == "redis":
        async with redis.running() as url:
            yield url
        return
    async with run.postgres.database(empty=True) as url:
        await call(peer, url, log, "setup")
        yield url


async def burn_down(run: Run, peer: Peer, jobs: int, processes: int, held: bool = False) -> Sample:
    """Bulk enqueue, then that many processes until everything has ended: from a worker's being
    ready (or the first handler, where that is earlier) to the last job stored as done."""
    log = _log(run, peer)
    async with store(run, peer, log) as url:
        bulk = await call(peer, url, log, "bulk", str(jobs))
        if peer.store == "postgres":
            await _settle(url)
        async with snapshot(url, held), workers(peer, url, log, processes) as crew:
            await until(
                f"{jobs} jobs handled", lambda: sum(said.done for said in crew) >= jobs, 900
            )
            while await unfinished(peer, url):
                pass
            ended = time.monotonic_ns()
        # Our worker says "ready" before its connections are open, and theirs after.
        said_by = [
            (said.first,) if peer is OURSELVES else (said.ready, said.first) for said in crew
        ]
        began = min(moment for moments in said_by for moment in moments if moment)
    seconds = (ended - began) / 1e9
    return {
        "jobs": jobs,
        "seconds": seconds,
        "per_second": jobs / seconds,
        "bulk_per_second": jobs / bulk.seconds,
    }


async def _settle(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")


async def singly(run: Run, peer: Peer, jobs: int) -> Sample:
    """Single enqueues, each awaited, by one client."""
    log = _log(run, peer)
    async with store(run, peer, log) as url:
        said = await call(peer, url, log, "one", str(jobs))
    return {"jobs": jobs, "per_second": jobs / said.seconds}


async def pick_up(run: Run, peer: Peer, jobs: int) -> Sample:
    """From the enqueue call to the start of the handler, jobs 20 ms apart, one idle worker."""
    log = _log(run, peer)
    async with store(run, peer, log) as url, workers(peer, url, log, 1) as crew:
        await until("the worker is ready", lambda: crew[0].ready > 0, 60)
        producer = await call(peer, url, log, "paced", str(jobs))
        await until("all watched jobs started", lambda: len(crew[0].started) >= jobs, 60)
        waits = _waits(producer, crew[0])
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99), "milliseconds": waits}


def _waits(producer: Said, worker: Said) -> list[float]:
    return [(worker.started[number] - moment) / 1e6 for number, moment in producer.sent.items()]


async def measure(run: Run, wanted: set[str]) -> None:
    """Every peer that can be installed; those that cannot, or fail, are named with the reason."""
    (run.out / "peers").mkdir(parents=True, exist_ok=True)
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    for peer in PEERS:
        run.say(f"peers: {peer.name}")
        try:
            versions[peer.name] = await installed(peer)
            if peer.store == "redis":
                versions[peer.name] += f", Redis {redis.version()}"
        except NotInstalled as error:
            absent[peer.name] = str(error)
    present = [peer for peer in PEERS if peer.name in versions]
    samples: dict[str, dict[str, list[Sample]]] = {}
    for what, sides in _sides(run, present).items():
        samples[what] = await run.take_turns(
            f"peers, {what}", {n: partial(_guarded, absent, n, s) for n, s in sides.items()}
        )
    run.add(figure(present, versions, absent, samples))


def _sides(run: Run, peers: list[Peer]) -> Mapping[str, dict[str, Measure]]:
    def jobs(peer: Peer) -> int:
        return run.size(peer.jobs, min(peer.jobs // 5, 10_000))

    on_postgres = [peer for peer in peers if peer.store == "postgres"]
    return {
        "one process": {peer.name: partial(burn_down, run, peer, jobs(peer), 1) for peer in peers},
        "two processes": {
            peer.name: partial(burn_down, run, peer, jobs(peer), 2) for peer in peers
        },
        "snapshot held": {
            peer.name: partial(burn_down, run, peer, jobs(peer), 1, True) for peer in on_postgres
        },
        "single enqueue": {
            peer.name: partial(singly, run, peer, run.size(SINGLE * 3, SINGLE // 2))
            for peer in peers
        },
        "pick-up": {
            peer.name: partial(pick_up, run, peer, run.size(WATCHED, WATCHED // 4))
            for peer in peers
        },
    }


async def _guarded(absent: dict[str, str], name: str, side: Measure) -> Mapping[str, Any]:
    """A peer that fails is reported, and the others are measured all the same. Our own failure is
    ours."""
    try:
        return await side()
    except (Failed, NotInstalled) as error:
        if name == OURSELVES.name:
            raise
        absent[name] = str(error)
        return {"failed": str(error)}
