"""R1: workers that are killed. R7: a job that kills them."""

import asyncio
import random
from typing import Any

import pytest

from pgqueue import AsyncClient
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import producing
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import many, scale, size, span
from tests.support.scene import until

SLACK = 10
"""Seconds that a busy machine may add to any promise."""


IN_FULL = pytest.mark.skipif(size() == 0, reason="runs at full size")


@pytest.mark.fault("R1")
@pytest.mark.parametrize(
    "slots", [30, pytest.param(5, marks=IN_FULL)], ids=["with_room", "with_a_backlog"]
)
async def test_jobs_of_killed_workers_start_again_and_none_is_lost(
    site: Site, record: Record, slots: int
) -> None:
    lease = scale(1, 5)
    gone = {}
    work = {"seconds": (0, 1), "rate": 25}  # five slots are somewhat too few for it
    async with (
        a_fleet(site, 4, slots=slots, PGQUEUE_LEASE=f"{lease}s") as fleet,
        producing(site, **work) as load,
    ):
        for _ in range(many(3, 100)):
            await span(random.uniform(scale(0.3, 1), scale(1, 5)))
            victim = await fleet.victim()
            gone[victim.login] = await fleet.kill(victim)
            await fleet.start(ready=False)  # as whoever supervises it does
        await load.stop()
        await fleet.drained(scale(60, 600))
        assert fleet.fallen() == []
    ledger = site.ledger()
    rescues = ledger.rescues(gone.items())
    counts = count(
        ledger,
        what=(
            f"SIGKILL of a random worker of four, {slots} slots each; recovery: until the last "
            "job of a killed one starts again"
        ),
        faults=len(gone),
        in_flight=len(ledger.left_by(gone)),
        stale_refused=fleet.refused(),
        recovery=ledger.rescued_after(gone.items()),
        lease=lease,
        longest_by_start={number: round(seconds, 2) for number, seconds in sorted(rescues.items())},
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    # Jobs that were with several killed workers start in small groups, one after the other.
    assert slots == 5 or rescues[1] < lease + 2 + SLACK


@pytest.mark.fault("R7")
async def test_a_job_that_kills_its_process_is_dead_after_five_starts_and_takes_nobody_with_it(
    site: Site, record: Record
) -> None:
    good: dict[str, Any] = {"processes": 2, "rate": scale(120, 60), "seconds": (0, 0.02)}
    first = many(100, 500)
    async with (
        a_fleet(site, 2, slots=50, PGQUEUE_LEASE="1s") as fleet,
        AsyncClient.open(site.url) as client,
    ):
        async with producing(site, count=first, **good) as alone:
            await alone.end(120)
        await fleet.drained()
        quiet_until = now()
        supervisor = asyncio.create_task(fleet.supervise())
        await client.enqueue("chaos.poison", {}, job_id="poison")
        Book(site.accepted / "test").write("poison")
        async with producing(site, count=500, **good) as beside:
            await beside.end(120)
        await until(
            lambda: bool(
                site.rows("SELECT 1 FROM job_logs WHERE job_id = 'poison' AND status = 'dlq'")
            ),
            90,
        )
        await fleet.drained()
        supervisor.cancel()
    ledger = site.ledger()
    before, after = ledger.p99(until=quiet_until), ledger.p99(since=quiet_until)
    gone = [member.login for member in fleet.all if member not in fleet.members]
    counts = count(
        ledger,
        what=(
            "a handler that kills its process beside 1,000 good jobs, others before them for "
            "comparison"
        ),
        faults=ledger.handled["poison"],
        in_flight=len(ledger.left_by(gone)),
        stale_refused=fleet.refused(),
        p99_without=before,
        p99_beside=after,
        p99_ratio=round(after / before, 2),
    )
    record(counts)
    (reason,) = site.rows("SELECT error FROM job_logs WHERE status = 'dlq'")
    assert counts.figures["ended"] == {"completed": 1000 + 2 * first, "dlq": 1}
    assert counts.faults == 5, "it was started five times"
    assert "The lease of attempt 5 ran out" in reason[0]
