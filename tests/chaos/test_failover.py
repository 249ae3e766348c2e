"""R6: the server is gone for good, and its synchronous standby goes on."""

from contextlib import AsyncExitStack

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.proxy import a_proxy
from tests.chaos.faults.standby import a_standby, promote
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span


@pytest.mark.fault("R6")
async def test_no_acknowledged_enqueue_is_missing_after_a_failover(site: Site, record: Record) -> None:
    struck, back = [], []
    async with (
        AsyncExitStack() as standbys,
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 2, slots=30, address=proxy.address, PGQUEUE_LEASE="10s") as fleet,
        producing(site, address=proxy.address, rate=scale(60, 300)) as load,
    ):
        for _ in range(many(1, 4)):
            standby = await standbys.enter_async_context(a_standby(site))
            await span(scale(1, 20))
            struck.append(now())
            await promote(site, standby)
            proxy.target = (standby.host, standby.port)
            back.append(now())
            await span(scale(1, 20))
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
        await fleet.stop_all()
        ledger = site.ledger()
    counts = count(
        ledger,
        what="the server killed under load, its synchronous standby promoted; recovery: from then to a completed job",
        faults=len(struck),
        in_flight=sum(map(ledger.open_at, struck)),
        stale_refused=fleet.refused(),
        recovery=max(map(ledger.resumed_after, back)),
        promotion_took=round(max((end - start).total_seconds() for start, end in zip(struck, back, strict=True)), 2),
        repeated_enqueues=load.figures["repeated"],
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
