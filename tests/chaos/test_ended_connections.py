"""R18: every connection of an API, a client and the workers ends at once, while they rest and while they work."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pgqueue import Client
from pgqueue.settings import Settings
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.proxy import Proxy, a_proxy
from tests.chaos.faults.standby import a_standby, promote
from tests.chaos.fleet import a_fleet, now
from tests.chaos.site import Login, Site
from tests.chaos.size import many, scale, span
from tests.chaos.web import Outage, an_api, refused_needlessly
from tests.pooler import a_pooler

BURST = 24

END_ALL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""

REST = 1.2
"""Seconds after which a connection of a pool counts as idle."""

SLACK = 2.0
"""Seconds to the answer, from when a connection could be made: generous, and less than two rounds of a pool's own patience."""


class Strikes:
    """Each ends every connection there is."""

    def __init__(self, site: Site, proxy: Proxy, standbys: AsyncExitStack) -> None:
        self.site = site
        self.proxy = proxy
        self.standbys = standbys
        self.outages: list[Outage] = []

    async def sessions(self) -> None:
        struck = now()
        self.site.rows(END_ALL)
        self.outages.append(Outage(struck, now()))

    async def restart(self) -> None:
        struck = now()
        await asyncio.to_thread(self.site.server.restart, "fast")
        self.outages.append(Outage(struck, now()))

    async def crash(self) -> None:
        struck = now()
        await asyncio.to_thread(self.site.server.restart, "immediate")
        self.outages.append(Outage(struck, now()))

    async def another(self) -> None:
        """The same address leads to what was the standby."""
        standby = await self.standbys.enter_async_context(a_standby(self.site))
        struck = now()
        await promote(self.site, standby)
        self.proxy.target = (standby.host, standby.port)
        self.outages.append(Outage(struck, now()))


@pytest.mark.fault("R18")
@pytest.mark.parametrize(
    ("at_rest", "at_work"),
    [(("sessions", "another"), ()), (("restart",), ("sessions", "crash"))],
    ids=["a_session_or_the_server", "a_restart_or_a_crash"],
)
async def test_calls_are_answered_as_soon_as_there_is_a_connection(
    site: Site, record: Record, at_rest: tuple[str, ...], at_work: tuple[str, ...]
) -> None:
    """A call that could wait is not refused, by the API or by a client."""
    failed: list[str] = []
    async with (
        AsyncExitStack() as standbys,
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 2, slots=30, address=proxy.address, PGQUEUE_LEASE="10s") as fleet,
        an_api(site, address=proxy.address) as api,
        Client.open(Settings(database_url=site.login("pgqueue_producer", proxy.address).url)) as client,
    ):
        strikes, callers = Strikes(site, proxy, standbys), api.callers

        async def by_client(number: int) -> None:
            results = await asyncio.gather(
                *(client.enqueue("chaos.work", {"seconds": 0.01}) for _ in range(number)), return_exceptions=True
            )
            failed.extend(repr(one) for one in results if isinstance(one, BaseException))

        await callers.burst(BURST)  # as many connections as the pools may have
        await by_client(BURST)
        for _ in range(many(1, 20)):
            for fault in at_rest:
                await span(REST * scale(1, 2))
                await getattr(strikes, fault)()
                await asyncio.gather(callers.burst(BURST), by_client(BURST // 2))
            for fault in at_work or at_rest[: many(0, 1)]:
                async with callers.calling(scale(30, 100)):
                    await span(scale(0.5, 5))
                    await getattr(strikes, fault)()
                    await span(scale(0.5, 5))
        await fleet.drained()
        assert fleet.fallen() == []
        await fleet.stop_all()
        assert await api.stop() == 0
        ledger = site.ledger()
    outages = strikes.outages
    counts = count(
        ledger,
        what=f"every connection ended at rest ({', '.join(at_rest)}) and at work ({', '.join(at_work) or 'none'}); recovery: "
        "from when a connection could be made to the slowest answer",
        faults=len(outages),
        in_flight=sum(ledger.open_at(one.struck) for one in outages),
        stale_refused=fleet.refused(),
        recovery=callers.slowest_after(outages),
        answers=callers.codes,
        longest_outage=round(max((one.back - one.struck).total_seconds() for one in outages), 2),
        calls_of_the_client_that_failed=len(failed),
    )
    record(counts)
    assert refused_needlessly(callers.answers, outages) == []
    assert failed == []
    assert callers.slowest_after(outages) < SLACK
    assert counts.figures["ended"].keys() == {"completed"}


@pytest.mark.fault("R18")
async def test_a_pooler_that_is_reloaded_or_restarted_refuses_nothing_that_could_wait(site: Site, record: Record) -> None:
    login = site.login("pgqueue_worker")
    site.rows(f"GRANT pgqueue_operator TO {login.name}")
    outages: list[Outage] = []
    async with a_pooler(login.url, site.folder) as pooler:
        site.everybody = Login(login.name, pooler.url)
        pooled: dict[str, Any] = {"PGQUEUE_PGBOUNCER": "on"}
        async with a_fleet(site, 2, slots=30, PGQUEUE_LEASE="10s", **pooled) as fleet, an_api(site, **pooled) as api:
            callers = api.callers
            await callers.burst(BURST)
            for turn in range(many(1, 20)):
                await span(REST)
                pooler.reload()
                await callers.burst(BURST)
                await span(REST)
                outages.append(Outage(now(), await _restarted(pooler, turn)))
                await callers.burst(BURST)
                async with callers.calling(scale(30, 100)):
                    await span(scale(0.5, 5))
                    outages.append(Outage(now(), await _restarted(pooler, turn + 1)))
                    await span(scale(0.5, 5))
            await fleet.drained()
            assert fleet.fallen() == []
            await fleet.stop_all()
            assert await api.stop() == 0
    ledger = site.ledger()
    counts = count(
        ledger,
        what="PgBouncer reloaded, stopped and killed, under workers and an API; recovery: from its return to the slowest answer",
        faults=many(1, 20) + len(outages),
        in_flight=sum(ledger.open_at(one.struck) for one in outages),
        stale_refused=fleet.refused(),
        recovery=callers.slowest_after(outages),
        logins=False,
        answers=callers.codes,
    )
    record(counts)
    assert refused_needlessly(callers.answers, outages) == []
    assert callers.slowest_after(outages) < SLACK
    assert counts.figures["ended"].keys() == {"completed"}


async def _restarted(pooler: Any, turn: int) -> Any:
    await pooler.restart(kill=bool(turn % 2))
    return now()
