"""R19: attempts that end in every odd way, endings that cannot be written, and SIGTERM after
them."""

import asyncio

import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import Fleet, a_fleet
from tests.chaos.load import enqueue, producing
from tests.chaos.odd_tasks import ENDINGS
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span
from tests.support.scene import until

ODD = {
    "PGQUEUE_MODULES": "tests.chaos.tasks,tests.chaos.odd_tasks",
    "PGQUEUE_SHUTDOWN_TIMEOUT": "2s",
}

CODES = ("42501", "P0001", "23505", "22003", "XX000", "XX001", "57014", "55P03", "0A000")
"""What a trigger of the application may answer: refusals, damage, limits, locks. (Not what says
that the server is away, full, or about to stop, or that the statement is to be sent again.)"""

REFUSES = """
CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not this one' USING ERRCODE = split_part(NEW.job_id, '-', 2);
END
$$;
CREATE TRIGGER refuses_acks BEFORE UPDATE ON job_logs FOR EACH ROW
    WHEN (OLD.status = 'processing' AND NEW.status <> 'processing' AND NEW.job_id LIKE 'unended-%')
    EXECUTE FUNCTION refuses();
CREATE TRIGGER refuses_claims BEFORE UPDATE ON job_logs FOR EACH ROW
    WHEN (NEW.status = 'processing' AND NEW.job_id LIKE 'unclaimed-%') EXECUTE FUNCTION refuses();
"""
RELENTS = "DROP FUNCTION refuses() CASCADE"


@pytest.mark.fault("R19")
async def test_whatever_a_handler_raises_its_own_attempt_ends(site: Site, record: Record) -> None:
    endings = [
        NewJob(task, {"how": how}, f"{task}-{turn}-{number}")
        for turn in range(many(1, 50))
        for task in ("odd.ends", "odd.ends.in.a.thread")
        for number, how in enumerate(ENDINGS)
    ]
    async with (
        a_fleet(site, 2, slots=20, **ODD) as fleet,
        AsyncClient.open(site.url) as client,
        producing(site, 1, rate=30) as load,
    ):
        await enqueue(site, client, endings)
        await span(scale(2, 20))
        await load.stop()
        await fleet.drained(scale(30, 300), hastened=True)
        assert fleet.fallen() == []
        await fleet.stop_all()
    ledger = site.ledger()
    counts = count(
        ledger,
        what=f"{len(ENDINGS)} odd endings, of coroutines and in threads, beside good jobs",
        faults=len(endings),
        in_flight=ledger.given_back,
        slowest_of_the_others=ledger.p100("p"),
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed", "dlq"}
    assert {ledger.statuses[job] for job in ledger.accepted if job.startswith("p")} == {"completed"}


@pytest.mark.fault("R19")
async def test_a_job_whose_claim_or_ending_is_refused_holds_up_no_other(
    site: Site, record: Record
) -> None:
    """As long as it lasts; then those end too."""
    site.rows(REFUSES)
    refused = [
        NewJob("chaos.work", {"seconds": 0}, f"{what}-{code}-{turn}", priority=0)
        for turn in range(many(1, 20))
        for code in CODES
        for what in ("unended", "unclaimed")
    ]
    async with a_fleet(site, 2, slots=20, **ODD) as fleet, AsyncClient.open(site.url) as client:
        await enqueue(site, client, refused)
        async with producing(site, 1, rate=30) as load:
            await span(scale(3, 60))
            await load.stop()
        ids = [str(job.job_id) for job in refused]
        await fleet.drained(scale(20, 60), apart_from=ids)
        heard = site.value("SELECT max(now() - seen_at) < interval '10 s' FROM job_workers")
        (restarted, *_) = fleet.members
        code = await fleet.stop(restarted)
        site.rows(RELENTS)
        await fleet.start()
        await fleet.drained(scale(30, 60), hastened=True)
        assert fleet.fallen() == []
        await fleet.stop_all()
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            f"a trigger that refuses the claims or the endings of some jobs with {len(CODES)} "
            "errors, then no more"
        ),
        faults=len(refused),
        in_flight=sum(ledger.handled[job] for job in ids),
        stale_refused=fleet.refused(),
        slowest_of_the_others=ledger.p100("p"),
    )
    record(counts)
    assert heard, "the sweeps went on"
    assert code == 0
    assert {ledger.statuses[job] for job in ledger.accepted if job.startswith("p")} == {"completed"}


@pytest.mark.fault("R19")
async def test_a_handler_that_disturbs_the_event_loop_takes_nobody_with_it(
    site: Site, record: Record
) -> None:
    """The worker may end, as one that gives back what it has."""
    hows = ("stops the loop", "cancels all tasks") * many(1, 20)
    jobs = [
        NewJob("odd.disturbs", {"how": how}, f"disturbs-{number}")
        for number, how in enumerate(hows)
    ]
    async with a_fleet(site, 2, slots=20, **ODD) as fleet, AsyncClient.open(site.url) as client:
        supervisor = asyncio.create_task(fleet.supervise())
        async with producing(site, 1, rate=20, seconds=(0, 0.2)) as load:
            await span(0.5)
            await enqueue(site, client, jobs)
            await span(scale(2, 60))
            await load.stop()
        await fleet.drained(scale(30, 120), hastened=True)
        supervisor.cancel()
        await asyncio.wait([supervisor])
        await _stop_once_ready(site, fleet)
    ledger = site.ledger()
    gone = [member.login for member in fleet.all if not member.runs]
    counts = count(
        ledger,
        what=(
            "handlers that stop their event loop or cancel all its tasks, workers started again "
            "as they end"
        ),
        faults=len(jobs),
        in_flight=len(ledger.left_by(gone)) + ledger.given_back,
        stale_refused=fleet.refused(),
        workers_that_ended=len(fleet.all) - len(fleet.members),
        slowest_of_the_others=ledger.p100("p"),
    )
    record(counts)
    assert {ledger.statuses[job] for job in ledger.accepted if job.startswith("p")} == {"completed"}


async def _stop_once_ready(site: Site, fleet: Fleet) -> None:
    """A worker that was only just started does not yet know what SIGTERM means."""
    for member in fleet.members:
        await until(
            lambda: bool(site.rows("SELECT 1 FROM job_workers WHERE pid = %s", member.pid)),  # noqa: B023
            30,
        )
    await fleet.stop_all()


@pytest.mark.fault("R19")
async def test_a_worker_ends_in_time_although_a_handler_does_not(site: Site) -> None:
    """Not even when another handler has had the process ignore SIGTERM before."""
    async with a_fleet(site, 1, **ODD) as fleet, AsyncClient.open(site.url) as client:
        (worker,) = fleet.members
        await client.enqueue("odd.disturbs", {"how": "ignores SIGTERM"}, job_id="deaf")
        await fleet.drained(20)
        await client.enqueue("odd.stubborn", {}, job_id="stubborn")
        await until(lambda: "stubborn" in site.ledger().handled, 20)
        assert await fleet.stop(worker, deadlines=20) == 0
    row = site.rows("SELECT status, attempt_count FROM job_logs WHERE job_id = 'stubborn'")
    assert row == [("enqueued", 0)], "it was given back, its attempt does not count"
