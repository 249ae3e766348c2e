"""R23: what administrators do to the tables of a queue at work: locks, migrations, rebuilds."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

import psycopg
import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span
from tests.chaos.web import Outage, an_api, refused_needlessly

HOLDS: dict[str, Sequence[str]] = {
    "LOCK TABLE": ["LOCK TABLE job_logs IN ACCESS EXCLUSIVE MODE"],
    "ALTER, add a column": ["ALTER TABLE job_logs ADD COLUMN mine{n} text"],
    "ALTER, another type": ["ALTER TABLE job_logs ALTER COLUMN job_id TYPE varchar"],
    "ALTER, the type again": ["ALTER TABLE job_logs ALTER COLUMN job_id TYPE text"],
    "a constraint": ["ALTER TABLE job_logs ADD CONSTRAINT mine{n} CHECK (job_id <> 'never{n}')"],
    "CREATE INDEX": ["CREATE INDEX mine{n} ON job_logs (error)"],
    "the small tables": [
        "LOCK TABLE job_queues, job_types, job_workers, job_dependencies IN ACCESS EXCLUSIVE MODE"
    ],
}
"""Each in a transaction that stays open for a while."""

RUNS = (
    "VACUUM FULL job_logs",
    "REINDEX TABLE CONCURRENTLY job_logs",
    "CREATE INDEX CONCURRENTLY later{n} ON job_logs (stack_trace)",
    "VACUUM (ANALYZE, FREEZE) job_logs",
    "CLUSTER job_logs USING job_logs_pkey",
    "ANALYZE",
    "DROP INDEX CONCURRENTLY later{n}",
)
"""Each outside of one."""


@pytest.mark.fault("R23")
async def test_locks_and_maintenance_under_load_lose_nothing_and_end_no_process(
    site: Site, record: Record
) -> None:
    struck: list[datetime] = []
    locked: list[Outage] = []
    took: dict[str, float] = {}
    async with (
        a_fleet(site, 2, slots=20, PGQUEUE_LEASE="10s") as fleet,
        an_api(site) as api,
        await psycopg.AsyncConnection.connect(site.url, autocommit=True) as dba,
    ):
        callers = api.callers
        async with callers.calling(scale(30, 150)):
            for n in range(many(1, 5)):
                for name, statements in HOLDS.items():
                    struck.append(now())
                    async with dba.transaction():
                        for statement in statements:
                            await dba.execute(statement.format(n=n).encode())
                        await span(scale(0.5, 12))
                    locked.append(Outage(struck[-1], now()))
                    took[name] = round((locked[-1].back - struck[-1]).total_seconds(), 2)
                    await span(0.1)
                for statement in RUNS:
                    struck.append(now())
                    began = time.monotonic()
                    async with asyncio.timeout(scale(20, 120)):
                        await dba.execute(statement.format(n=n).encode())
                    took[statement] = round(time.monotonic() - began, 2)
                    if "FULL" in statement or "CLUSTER" in statement:
                        locked.append(Outage(struck[-1], now()))
        await fleet.drained()
        assert fleet.fallen() == []
        await fleet.stop_all()
        assert await api.stop() == 0
    ledger = site.ledger()
    counts = count(
        ledger,
        what="ALTER, LOCK, CREATE INDEX held open, VACUUM FULL, REINDEX CONCURRENTLY, CLUSTER, "
        "under load; "
        "recovery: from the end of a lock to a completed job",
        faults=len(struck),
        in_flight=sum(map(ledger.open_at, struck)),
        stale_refused=fleet.refused(),
        recovery=max(ledger.resumed_after(one.back) for one in locked),
        answers=callers.codes,
        seconds=took,
    )
    record(counts)
    assert refused_needlessly(callers.answers, locked) == []
    assert counts.figures["ended"].keys() == {"completed"}
