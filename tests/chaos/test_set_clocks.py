"""R23: the database's clock, the only one that counts, is set an hour forward and back again."""

from datetime import datetime

import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.clock import with_a_clock
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import enqueue, producing
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span
from tests.support.scene import until

LEASE = 2
SLACK = 10
"""Seconds that a busy machine may add to any promise."""

AHEAD = "+1h"
A_DAY_AHEAD = "+25h"


@pytest.mark.fault("R23")
@pytest.mark.parametrize("offset", [AHEAD, A_DAY_AHEAD])
async def test_a_clock_set_forward_and_back_loses_nothing_and_holds_nothing_up(
    site: Site, record: Record, offset: str
) -> None:
    """What ran when it was set back, and whose worker died then, does not wait for the false
    time."""
    clock = await with_a_clock(site.server)
    gone: list[str] = []
    in_flight, refused, longest = 0, 0, 0.0
    for turn in range(many(1, 5)):
        gate = site.folder / f"gate-{turn}"
        held = [
            NewJob("chaos.gated", {"gate": str(gate)}, f"held-{turn}-{number}")
            for number in range(10)
        ]
        ids = [f"held-{turn}-{number}" for number in range(10)]
        async with (
            a_fleet(site, 2, slots=20, PGQUEUE_LEASE=f"{LEASE}s") as fleet,
            AsyncClient.open(site.url) as client,
        ):
            await enqueue(site, client, held)
            await until(lambda: _running(site) == 10, 20, "ten jobs at work")
            clock.set(offset)
            await until(lambda: _is_ahead(site), 10, "a clock that is ahead")
            in_flight += 10
            async with producing(site, 1, rate=20) as load:
                await span(scale(LEASE, 20))
                await load.stop()
            await fleet.drained(scale(20, 60), apart_from=ids)
            await until(lambda: _running(site) == 10, 20, "ten jobs at work all the same")
            # Their leases end an hour from now, or a day.
            for member in list(fleet.members):
                gone.append(member.login)
                await fleet.kill(member)
            in_flight += 10
            clock.set("+0")
            await until(lambda: not _is_ahead(site), 10, "a clock that is right")
            back = now()
            gate.touch()
            await fleet.start()
            async with producing(site, 1, rate=20) as load:
                await span(scale(1, 20))
                await load.stop()
            await fleet.drained(scale(1, 20) + LEASE + 2 + SLACK)
            longest = max(longest, (now() - back).total_seconds())
            assert fleet.fallen() == []
            await fleet.stop_all()
            refused += fleet.refused()
    counts = count(
        site.ledger(),
        what=f"the clock of Postgres set to {offset}, the workers killed with jobs in hand, the "
        "clock set back; "
        "recovery: from then until all is done",
        faults=2 * many(1, 5) + len(gone),
        in_flight=in_flight,
        stale_refused=refused,
        recovery=longest,
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}, "no job was given up by the calendar"


def _running(site: Site) -> int:
    statement = "SELECT count(*) FROM job_logs WHERE status = 'processing' AND job_id LIKE 'held-%'"
    return int(site.value(statement))


def _is_ahead(site: Site) -> bool:
    moment: datetime = site.value("SELECT clock_timestamp()")
    return abs((moment - now()).total_seconds()) > 60
