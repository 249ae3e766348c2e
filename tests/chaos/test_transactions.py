"""R1, R2 and R4 at once, over jobs that complete in the transaction of their own writes: those
happen exactly once."""

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.proxy import a_proxy
from tests.chaos.fleet import a_fleet
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span

LEASE = 2


@pytest.mark.fault("R4")
async def test_what_a_job_writes_in_its_transaction_is_written_exactly_once(
    site: Site, record: Record
) -> None:
    site.rows("CREATE TABLE payments (job_id text)")
    site.rows("GRANT INSERT ON payments TO pgqueue_worker")
    gone, struck = [], 0
    work = {"job_type": "chaos.paid", "seconds": (0, 0.3), "rate": 25}
    async with (
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 3, slots=20, address=proxy.address, PGQUEUE_LEASE=f"{LEASE}s") as fleet,
        producing(site, address=proxy.address, **work) as load,
    ):
        for turn in range(many(2, 80)):
            for _ in range(4):
                proxy.doom_one()
                await span(scale(0.2, 0.5))
            victim = await fleet.victim()
            struck += 1
            if turn % 2:
                gone.append(victim.login)
                await fleet.kill(victim)
                await fleet.start(ready=False)
            else:
                fleet.freeze(victim)
                await span(LEASE + 0.5)
                fleet.thaw(victim)
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
    ledger = site.ledger()
    paid = dict(site.rows("SELECT job_id, count(*) FROM payments GROUP BY job_id"))
    completed = {job for job, status in ledger.statuses.items() if status == "completed"}
    counts = count(
        ledger,
        what=(
            "workers killed and frozen in turn, and connections cut between commit and reply; "
            "each job writes in its transaction"
        ),
        faults=struck + proxy.cuts,
        in_flight=ledger.undone,
        stale_refused=fleet.refused(),
        handled=False,
        written=sum(paid.values()),
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    assert paid == dict.fromkeys(completed, 1)
