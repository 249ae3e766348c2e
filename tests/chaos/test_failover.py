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
from tests.chaos.size import many, scale, size, span


@pytest.mark.fault("R6")
async def test_no_acknowledged_enqueue_is_missing_after_a_failover(
    site: Site, record: Record
) -> None:
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
        what=(
            "the server killed under load, its synchronous standby promoted; recovery: from then "
            "to a completed job"
        ),
        faults=len(struck),
        in_flight=sum(map(ledger.open_at, struck)),
        stale_refused=fleet.refused(),
        recovery=max(map(ledger.resumed_after, back)),
        promotion_took=round(
            max((end - start).total_seconds() for start, end in zip(struck, back, strict=True)), 2
        ),
        repeated_enqueues=load.figures["repeated"],
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}


@pytest.mark.fault("R6")
@pytest.mark.skipif(size() == 0, reason="runs at full size")
async def test_whoever_was_led_to_a_standby_is_back_when_the_address_leads_to_the_primary(
    site: Site, record: Record
) -> None:
    """As after a failover when names are looked up a moment too early: the standby stays up and
    lets them in."""
    async with (
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 2, slots=30, address=proxy.address, PGQUEUE_LEASE="10s") as fleet,
        producing(site, address=proxy.address, rate=20) as load,
        a_standby(site) as standby,
    ):
        proxy.target = (standby.host, standby.port)
        struck = now()
        proxy.cut_all()
        await span(2)
        proxy.target = (site.server.host, site.server.port)
        back = now()
        await span(scale(2, 20))
        await load.stop(30)
        await fleet.drained()
        assert fleet.fallen() == []
        ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "all connections led to a standby that is not promoted, new ones to the primary "
            "again; recovery: from then on"
        ),
        faults=1,
        in_flight=ledger.open_at(struck),
        stale_refused=fleet.refused(),
        recovery=ledger.resumed_after(back),
        repeated_enqueues=load.figures["repeated"],
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
