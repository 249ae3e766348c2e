"""R3: a database that stops and starts again. R4: connections that end at any moment, also between
a commit and its answer."""

import asyncio
import random
from datetime import datetime, timedelta

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.proxy import a_proxy
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

LONG = timedelta(seconds=10)
"""Between two restarts, to say how soon the old speed was reached."""


@pytest.mark.fault("R3")
async def test_a_database_that_restarts_loses_nothing_and_ends_no_worker(
    site: Site, record: Record
) -> None:
    struck: list[datetime] = []
    back: list[datetime] = []
    rate = scale(40, 300)
    async with (
        a_fleet(site, 3, slots=30, PGQUEUE_LEASE="10s") as fleet,
        producing(site, rate=rate) as load,
    ):
        began = now()
        await span(scale(1, 20))
        for turn in range(many(2, 20)):
            struck.append(now())
            await asyncio.to_thread(site.server.restart, ("fast", "immediate")[turn % 2])
            back.append(now())
            await span(random.uniform(scale(1, 5), scale(2.5, 40)))
        ended = now()
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
        await fleet.stop_all()
    ledger = site.ledger()
    speed = ledger.speed(began, struck[0])
    long = [
        (since, until)
        for since, until in zip(back, [*struck[1:], ended], strict=True)
        if until - since > LONG
    ]
    counts = count(
        ledger,
        what=(
            "Postgres stopped, fast and immediate in turn, and started again; recovery: until "
            "jobs are completed again"
        ),
        faults=len(struck),
        in_flight=sum(map(ledger.open_at, struck)),
        stale_refused=fleet.refused(),
        recovery=max(map(ledger.resumed_after, back)),
        repeated_enqueues=load.figures["repeated"],
        jobs_a_second_before=round(speed),
        pauses_long_enough_to_see=len(long),
        seconds_to_95_percent_of_that=max(
            (ledger.at_speed_after(*pause, speed) for pause in long), default=None
        ),
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    assert counts.recovery is not None
    assert counts.recovery < 30 + SLACK
    assert not long or counts.figures["seconds_to_95_percent_of_that"] < 30 + SLACK


@pytest.mark.fault("R4")
async def test_connections_that_are_cut_at_any_moment_lose_and_double_nothing(
    site: Site, record: Record
) -> None:
    struck: list[datetime] = []
    async with (
        a_proxy(site.server.port) as proxy,
        a_fleet(site, 3, slots=30, address=proxy.address, PGQUEUE_LEASE="10s") as fleet,
        producing(site, address=proxy.address, rate=scale(40, 150)) as load,
        producing(site, 1, address=proxy.address, rate=scale(20, 150), own_ids=False) as unnamed,
    ):
        for _ in range(many(5, 240)):
            struck.append(now())
            _terminate_one(site)
            proxy.doom_one()
            proxy.doom_one()
            await span(0.5)
        await load.stop()
        await unnamed.stop()
        await fleet.drained()
        assert fleet.fallen() == []
        orphans = len(fleet.said("orphans.released"))
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "pg_terminate_backend and two connections cut between commit and reply, twice a second"
        ),
        faults=len(struck) + proxy.cuts,
        in_flight=0,
        stale_refused=fleet.refused(),
        cut_between_commit_and_reply=proxy.cuts,
        repeated_enqueues=load.figures["repeated"],
        answered_as_known=load.figures["known"],
        calls_that_failed_without_an_id=unnamed.figures["repeated"],
        workers_gave_back_unheard_claims=orphans,
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
    assert proxy.cuts > 0
    stored = sum(event.kind == "insert" for event in ledger.events)
    assert counts.jobs <= stored <= counts.jobs + unnamed.figures["repeated"], (
        "one row for each id, however often it was sent"
    )


def _terminate_one(site: Site) -> None:
    site.rows(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random()
             LIMIT 1"""
    )
