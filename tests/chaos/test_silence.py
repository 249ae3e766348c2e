"""R5: a network that swallows everything without a word, so that nobody is told that the other side
is gone."""

import asyncio
import os
import socket
from datetime import datetime, timedelta

import pytest

from pgqueue import AsyncClient
from pgqueue.settings import Settings
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.proxy import a_proxy
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import producing
from tests.chaos.producer import Book
from tests.chaos.site import Site, via
from tests.chaos.size import scale, size, span
from tests.support.scene import until

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

IMPATIENT = {"PGQUEUE_LEASE": "2s", "PGQUEUE_STATEMENT_TIMEOUT": "1s"}


@pytest.mark.fault("R5")
async def test_loops_resume_after_a_silence_and_nothing_is_lost(site: Site, record: Record) -> None:
    silence = scale(4, 60)
    async with (
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 2, address=proxy.address, **IMPATIENT) as fleet,
        producing(site, address=proxy.address, rate=20, deadlines=1, seconds=(0, 0.2)) as load,
    ):
        await span(1)
        struck = now()
        proxy.silent = True
        await span(silence)
        proxy.silent = False
        back = now()
        await until(lambda: _completed_since(site, back), 60, "a job completed after the silence")
        await span(2)
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "everything between workers, producers and Postgres swallowed; recovery: from the "
            "end of that to a completed job"
        ),
        faults=1,
        in_flight=ledger.open_at(struck + timedelta(seconds=1)),
        stale_refused=fleet.refused(),
        recovery=ledger.resumed_after(back),
        silence=silence,
        repeated_enqueues=load.figures["repeated"],
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}


def _completed_since(site: Site, moment: datetime) -> bool:
    return bool(
        site.rows(
            "SELECT 1 FROM ledger.events WHERE status = 'completed' AND at > %s LIMIT 1", moment
        )
    )


@pytest.mark.fault("R5")
async def test_a_worker_that_hears_nothing_stops_what_may_be_another_s_by_now(
    site: Site, record: Record
) -> None:
    async with (
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 1, address=proxy.address, **IMPATIENT) as fleet,
        AsyncClient.open(site.url) as client,
    ):
        (cut_off,) = fleet.members
        await client.enqueue("chaos.work", {"seconds": 600}, job_id="long")
        Book(site.accepted / "test").write("long")
        await until(
            lambda: bool(
                site.rows(
                    "SELECT 1 FROM job_logs WHERE lease_until > started_at + interval '2.1 s'"
                )
            )
        )
        struck = now()
        proxy.silent = True
        await until(lambda: bool(cut_off.said("lease.lost")), 2 + SLACK, "the end of the handler")
        (line,) = cut_off.said("lease.lost")
        await client.cancel("long")
    counts = count(
        site.ledger(),
        what="the same, one job in hand; recovery: until its handler is stopped",
        faults=1,
        in_flight=1,
        stale_refused=1,
        recovery=(datetime.fromisoformat(line["timestamp"]) - struck).total_seconds(),
    )
    record(counts)


@pytest.mark.fault("R5")
@pytest.mark.skipif(size() == 0, reason="takes a minute")
async def test_an_enqueue_that_is_given_up_ends_although_the_pool_is_full_of_dead_lines(
    site: Site,
) -> None:
    async with a_proxy(site.server.port) as proxy:
        settings = Settings(database_url=via(site.url, proxy.address), pool_size=3)
        async with AsyncClient.open(settings, doorbell=False) as client:
            pool = client.pool
            async with pool.connection(), pool.connection(), pool.connection() as last_taken:
                await until(lambda: sum(line.settled for line in proxy.lines) == 3)
                next_taken = socket.socket(fileno=os.dup(last_taken.pgconn.socket)).getsockname()
            for line in proxy.lines:
                line.doomed = line.client.get_extra_info("peername") == next_taken
                line.dead = not line.doomed
            call = asyncio.create_task(client.enqueue("chaos.work", {"seconds": 0}))
            await until(lambda: proxy.cuts == 1)
            await span(0.5)
            call.cancel()
            await asyncio.wait({call}, timeout=2 * SLACK)
            ended = call.done()
            proxy.cut_all()
    assert ended
