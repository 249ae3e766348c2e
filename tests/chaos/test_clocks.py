"""R11: workers and producers whose clocks are wrong. Only the database's counts."""

from datetime import datetime
from itertools import pairwise

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.clock import wrong_by
from tests.chaos.fleet import Member, a_fleet, now
from tests.chaos.ledger import Ledger
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import scale, span
from tests.support.scene import until

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

DELAY = 1.0
BACKOFF = 0.2
"""After a first failure (tasks.QUICKLY)."""


@pytest.mark.fault("R11")
async def test_clocks_that_are_an_hour_wrong_have_no_effect(site: Site, record: Record) -> None:
    early, late = wrong_by("-1h"), wrong_by("+1h")
    later = {"delay": DELAY, "rate": 20}
    failing = {"job_type": "chaos.flaky", "payload": {"times": 1}, "rate": 10}
    async with (
        a_fleet(site, slots=30, PGQUEUE_LEASE="2s") as fleet,
        producing(site, 1, environment=early, rate=20) as first,
        producing(site, 1, environment=late, **later) as second,
        producing(site, 1, **failing) as third,
    ):
        for environment in (early, late, late):
            await fleet.start(**environment, PGQUEUE_LOG_LEVEL="info")
        assert [await _hours_wrong(member) for member in fleet.members] == [-1, 1, 1]
        await span(scale(1.5, 30))
        victim = fleet.members[1]
        gone = [(victim.login, await fleet.kill(victim))]
        await span(scale(1.5, 30))
        for load in (first, second, third):
            await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
    ledger = site.ledger()
    waits, errors = _waits(ledger, site)
    counts = count(
        ledger,
        what=(
            "workers and producers an hour fast and slow, one worker killed; recovery: until its "
            "jobs start again"
        ),
        faults=1,
        in_flight=len(ledger.left_by([victim.login])),
        stale_refused=fleet.refused(),
        recovery=ledger.rescued_after(gone),
        earliest_start=round(min(waits), 3),
        latest_start=round(max(waits), 3),
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    assert min(waits) >= 0
    assert max(waits) < SLACK
    assert max(map(abs, errors)) < SLACK


async def _hours_wrong(member: Member) -> int:
    await until(lambda: bool(member.said("worker.started")))
    (line,) = member.said("worker.started")
    return round((datetime.fromisoformat(line["timestamp"]) - now()).total_seconds() / 3600)


def _waits(ledger: Ledger, site: Site) -> tuple[list[float], list[float]]:
    """For every start that was not a rescue: how long it came after its time (a delay, a backoff),
    in seconds; and for every time that was set, how far it is from when it should be."""
    delayed = {
        job
        for (job,) in site.rows(
            "SELECT job_id FROM job_logs WHERE run_after > created_at + interval '0.5 s'"
        )
    }
    waits, errors = [], []
    for job, events in ledger.by_job.items():
        for before, after in pairwise(events):
            if after.kind == "start" and before.kind != "start":
                should = BACKOFF if before.kind == "end" else DELAY if job in delayed else 0.0
                waits.append((after.at - after.due).total_seconds())
                errors.append((after.due - before.at).total_seconds() - should)
    return waits, errors
