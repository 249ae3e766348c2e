"""R18: every connection of an API, a client and the workers ends at once, while they rest and while
they work."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import psycopg
import pytest

from pgqueue import AsyncClient
from pgqueue.errors import QueueError
from tests.chaos.conftest import Record
from tests.chaos.counts import Counts, count
from tests.chaos.faults.proxy import Proxy, a_proxy
from tests.chaos.faults.standby import a_standby, promote
from tests.chaos.fleet import Fleet, a_fleet, now
from tests.chaos.producer import Book
from tests.chaos.site import Login, Site
from tests.chaos.size import many, scale, size, span
from tests.chaos.web import Api, Outage, an_api, refused_needlessly
from tests.support.pooler import Pooler, a_pooler

BURST = 24

END_ALL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""

REST = 1.2
"""Seconds after which a connection of a pool counts as idle."""

SLACK = 0.9
"""Seconds to the answer of a call that comes alone, once a connection can be made. It takes some
milliseconds; a pool that waits between two tries waits a second."""


class Scene:
    """An API, a client and workers at an address, and what ends every connection there is."""

    def __init__(
        self,
        site: Site,
        proxy: Proxy,
        fleet: Fleet,
        api: Api,
        client: AsyncClient,
        standbys: AsyncExitStack,
    ) -> None:
        self.site = site
        self.proxy = proxy
        self.fleet = fleet
        self.api = api
        self.callers = api.callers
        self.client = client
        self.standbys = standbys
        self.outages: list[Outage] = []
        self.alone: list[float] = []
        """Seconds that the first call took, where it came alone."""
        self.failed: list[str] = []
        """Calls of the client."""
        self._book = Book(site.accepted / "test")

    async def fill(self) -> None:
        """As many connections as the pools may have."""
        await asyncio.gather(self.callers.burst(BURST), self._enqueue(BURST))

    async def call(self, which: str) -> None:
        began = time.monotonic()
        match which:
            case "post":
                await self.callers.post()
            case "read":
                await self.callers.get("/api/jobs/call-1")
            case "ready":
                await self.callers.get("/readyz")
            case "client":
                await self._enqueue(1)
            case "burst":
                return await self.fill()
        self.alone.append(time.monotonic() - began)

    async def _enqueue(self, number: int) -> None:
        async def one() -> None:
            try:
                self._book.write(
                    (await self.client.enqueue("chaos.work", {"seconds": 0.01})).job_id
                )
            except (psycopg.Error, QueueError, OSError) as error:
                self.failed.append(repr(error))

        await asyncio.gather(*(one() for _ in range(number)))

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

    async def counts(self, what: str) -> Counts:
        """Once everything has ended as it should."""
        await self.fleet.drained()
        assert self.fleet.fallen() == []
        await self.fleet.stop_all()
        assert await self.api.stop() == 0
        ledger, slowest = self.site.ledger(), self.callers.slowest_after(self.outages)
        return count(
            ledger,
            what=f"{what}; recovery: from when a connection could be made to the slowest answer",
            faults=len(self.outages),
            in_flight=sum(ledger.open_at(one.struck) for one in self.outages),
            stale_refused=self.fleet.refused(),
            recovery=slowest,
            answers=self.callers.codes,
            longest_outage=round(max((o.back - o.struck).total_seconds() for o in self.outages), 2),
            slowest_that_came_alone=round(max(self.alone, default=0.0), 3),
            calls_of_the_client_that_failed=len(self.failed),
        )

    def answered_what_could_wait(self) -> None:
        assert refused_needlessly(self.callers.answers, self.outages) == []
        assert self.failed == []


@asynccontextmanager
async def a_scene(site: Site) -> AsyncIterator[Scene]:
    async with (
        AsyncExitStack() as standbys,
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 2, slots=30, address=proxy.address, PGQUEUE_LEASE="10s") as fleet,
        an_api(site, address=proxy.address) as api,
        AsyncClient.open(site.login("pgqueue_producer", proxy.address).url) as client,
    ):
        yield Scene(site, proxy, fleet, api, client, standbys)


CALLS = ("post", "read", "ready", "client", "burst")
"""What comes first after everything has ended; all but the last come alone."""

FAULTS = ("sessions", "restart", "crash", "another")

AT_REST = [("sessions", "post"), ("sessions", "client"), ("another", "burst")]
AT_WORK = ("sessions", "crash")


@pytest.mark.fault("R18")
async def test_a_caller_that_rested_is_answered_as_soon_as_there_is_a_connection(
    site: Site, record: Record
) -> None:
    """The first call after it, and many at once: each waits for a connection, none is refused."""
    strikes = AT_REST if size() == 0 else list(itertools.product(FAULTS, CALLS)) * many(1, 3)
    async with a_scene(site) as scene:
        for fault, call in strikes:
            await scene.fill()
            await span(REST * scale(1, 2))
            await getattr(scene, fault)()
            await scene.call(call)
        counts = await scene.counts(
            "every connection of resting programs ended, then one call or many"
        )
    record(counts)
    scene.answered_what_could_wait()
    assert max(scene.alone) < SLACK
    assert counts.figures["ended"].keys() == {"completed"}


@pytest.mark.fault("R18")
async def test_callers_at_work_are_answered_as_soon_as_there_is_a_connection(
    site: Site, record: Record
) -> None:
    async with a_scene(site) as scene:
        for fault in AT_WORK if size() == 0 else FAULTS * many(1, 10):
            async with scene.callers.calling(scale(30, 100)):
                await span(scale(0.5, 5))
                await getattr(scene, fault)()
                await span(scale(0.5, 5))
        counts = await scene.counts("every connection ended under steady calls")
    record(counts)
    scene.answered_what_could_wait()
    assert counts.figures["ended"].keys() == {"completed"}


@pytest.mark.fault("R18")
async def test_a_pooler_that_is_reloaded_or_restarted_refuses_nothing_that_could_wait(
    site: Site, record: Record
) -> None:
    login = site.login("pgqueue_worker")
    site.rows(f"GRANT pgqueue_operator TO {login.name}")
    outages: list[Outage] = []
    async with a_pooler(login.url, site.folder) as pooler:
        site.everybody = Login(login.name, pooler.url)
        pooled: dict[str, Any] = {"PGQUEUE_PGBOUNCER": "on"}
        async with (
            a_fleet(site, 2, slots=30, PGQUEUE_LEASE="10s", **pooled) as fleet,
            an_api(site, **pooled) as api,
        ):
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
        what=(
            "PgBouncer reloaded, stopped and killed, under workers and an API; recovery: from "
            "its return to the slowest answer"
        ),
        faults=many(1, 20) + len(outages),
        in_flight=sum(ledger.open_at(one.struck) for one in outages),
        stale_refused=fleet.refused(),
        recovery=callers.slowest_after(outages),
        logins=False,
        answers=callers.codes,
    )
    record(counts)
    assert refused_needlessly(callers.answers, outages) == []
    assert counts.figures["ended"].keys() == {"completed"}


async def _restarted(pooler: Pooler, turn: int) -> datetime:
    await pooler.restart(kill=bool(turn % 2))
    return now()
