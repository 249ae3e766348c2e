"""R17: whatever can be done to jobs, done to the same rows at once, and one row that takes no
ack."""

import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.agitator import Order
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet
from tests.chaos.load import Load, enqueue, start
from tests.chaos.site import Site
from tests.chaos.size import many, scale


@pytest.mark.fault("R17")
async def test_everything_at_once_over_the_same_rows_deadlocks_nobody_and_loses_nothing(
    site: Site, record: Record
) -> None:
    site.rows(
        "ALTER TABLE job_logs ADD CONSTRAINT bad_row CHECK (job_id <> 'bad' OR status <> "
        "'completed')"
    )
    processes, seconds = many(2, 4), scale(5, 120)
    async with (
        a_fleet(site, 3, slots=40, PGQUEUE_LEASE="1s") as fleet,
        AsyncClient.open(site.url) as client,
    ):
        await enqueue(site, client, [NewJob("chaos.work", {"seconds": 0}, "bad", priority=0)])
        started = []
        for number in range(processes):
            order = Order(
                site.login("pgqueue_operator").url,
                str(site.accepted / f"agitator-{number}"),
                60,
                seconds,
            )
            started.append(await start("tests.chaos.agitator", site, f"agitator-{number}", order))
        agitators = Load(started)
        await agitators.end(seconds + 60)
        await fleet.drained()
        assert fleet.fallen() == []
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "bulk enqueues, cancels, replays and deletes from several processes, acks, "
            "extensions and sweeps over the same rows"
        ),
        faults=sum(agitators.figures.values()),
        in_flight=4 + sum(event.kind == "end" and event.taken for event in ledger.events),
        stale_refused=fleet.refused(),
        deadlocks_that_were_repeated=site.server.log.read_text().count("deadlock detected"),
        did=dict(agitators.figures),
        outcomes_that_could_not_be_stored=sum(
            line["jobId"] == "bad" for line in fleet.said("job.dlq")
        ),
    )
    record(counts)
    assert counts.figures["did"].get("unhandled", 0) == 0
    assert counts.figures["outcomes_that_could_not_be_stored"] >= 5, "once more with each replay"
    assert ledger.statuses["bad"] == "dlq"
