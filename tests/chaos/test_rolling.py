"""R12: workers that are replaced one after the other, while some jobs take longer than they may."""

import time
from datetime import datetime

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.ledger import Ledger
from tests.chaos.load import producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span

SLACK = 10
"""Seconds that a busy machine may add to any promise."""


@pytest.mark.fault("R12")
async def test_workers_that_are_replaced_hand_back_what_they_cannot_finish_and_burn_nothing(
    site: Site, record: Record
) -> None:
    longest, stopping = scale(2, 40), scale(1, 20)
    struck, exits, codes = [], [], []
    environment = {"PGQUEUE_SHUTDOWN_TIMEOUT": f"{stopping}s", "PGQUEUE_LEASE": "60s"}
    work = {"seconds": (longest / 40, longest), "rate": scale(10, 1)}
    async with a_fleet(site, 2, slots=60, **environment) as fleet, producing(site, **work) as load:
        for _ in range(many(2, 12)):
            await span(scale(0.5, 20))
            await fleet.start()
            oldest = fleet.members[0]
            struck.append((oldest.login, now()))
            began = time.monotonic()
            codes.append(await fleet.stop(oldest, stopping + 5 + SLACK))
            exits.append(time.monotonic() - began)
        await load.stop()
        await fleet.drained(longest + 60)
        assert fleet.fallen() == []
    ledger = site.ledger()
    given_back = [event for event in ledger.events if event.kind == "end" and not event.burned]
    counts = count(
        ledger,
        what=(
            f"SIGTERM, one after the other, jobs of up to {longest:g} s and {stopping:g} s to "
            "stop; recovery: the longest exit"
        ),
        faults=len(struck),
        in_flight=len(given_back),
        stale_refused=fleet.refused(),
        recovery=max(exits),
        given_back=len(given_back),
        longest_until_given_back=round(_given_back_after(ledger, struck), 2),
        most_attempts=site.value("SELECT max(attempt_count) FROM job_logs"),
    )
    record(counts)
    assert set(codes) == {0}
    assert given_back, "there were jobs that took too long"
    assert counts.figures["ended"].keys() == {"completed"}
    assert counts.figures["most_attempts"] == 1, "no attempt was burned"
    assert counts.figures["longest_until_given_back"] < stopping + 1 + SLACK


def _given_back_after(ledger: Ledger, struck: list[tuple[str, datetime]]) -> float:
    """The longest time from a SIGTERM until a job of that worker was given back."""
    return max(
        (event.at - moment).total_seconds()
        for login, moment in struck
        for event in ledger.events
        if event.writer == login and event.kind == "end" and not event.burned
    )
