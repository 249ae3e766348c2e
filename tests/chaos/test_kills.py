"""R1: workers that are killed. R7: a job that kills them."""

import random

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span

SLACK = 10
"""Seconds that a busy machine may add to any promise."""


async def test_jobs_of_killed_workers_start_again_and_none_is_lost(site: Site, record: Record) -> None:
    lease = scale(1, 5)
    gone = {}
    work = {"seconds": (0, 1), "rate": 20}
    async with a_fleet(site, 4, slots=30, PGQUEUE_LEASE=f"{lease}s") as fleet, producing(site, **work) as load:
        for _ in range(many(6, 100)):
            await span(random.uniform(scale(0.3, 1), scale(1, 5)))
            victim = random.choice(fleet.members)
            gone[victim.login] = await fleet.kill(victim)
            await fleet.start(ready=False)  # as whoever supervises it does
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
    ledger = site.ledger()
    counts = count(
        ledger,
        fault="R1",
        what="SIGKILL of a random worker of four; recovery: until the last job of a killed one starts again",
        faults=len(gone),
        in_flight=len(ledger.left_by(gone)),
        stale_refused=fleet.refused(),
        recovery=ledger.rescued_after(gone.items()),
        lease=lease,
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    assert ledger.rescued_after(gone.items()) < lease + 2 + SLACK
