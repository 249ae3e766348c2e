"""R2: workers that are frozen until somebody else has their jobs, and then go on as if nothing had
happened."""

import random
from pathlib import Path
from typing import Any

import pytest

from pgqueue import AsyncClient
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.ledger import lines
from tests.chaos.load import producing
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span
from tests.support.scene import until

SETTLED = 0.2
"""Seconds after which a statement that a worker sent before it was frozen has been carried out."""

ENDINGS = ("return", "fail", "discard", "report", "go on")
"""What the frozen attempt does when it wakes: each is another statement that must find no row."""


@pytest.mark.fault("R2")
async def test_whatever_a_frozen_worker_writes_after_its_lease_changes_nothing(
    site: Site, record: Record, tmp_path: Path
) -> None:
    (gates := tmp_path / "gates").mkdir()
    async with (
        a_fleet(site, len(ENDINGS), slots=1, PGQUEUE_LEASE="1s") as fleet,
        AsyncClient.open(site.url) as client,
    ):
        frozen = list(fleet.members)
        for then in ENDINGS:
            job_id = f"frozen-{then.replace(' ', '-')}"
            await client.enqueue("chaos.frozen", {"then": then, "gates": str(gates)}, job_id=job_id)
            Book(site.accepted / "test").write(job_id)
        await until(
            lambda: len(lines(site.effects)) == len(ENDINGS), 30, "an attempt in each worker"
        )
        for member in frozen:
            fleet.freeze(member)
        (gates / "first").touch()
        await fleet.start("--queue", "default:20")
        await until(
            lambda: _attempts(site) == [2] * len(ENDINGS), 30, "the other worker's attempts"
        )
        before = _rows(site)
        for member in frozen:
            fleet.thaw(member)
        await until(
            lambda: all(member.said("lease.lost") for member in frozen), 30, "every refusal"
        )
        after = _rows(site)
        (gates / "second").touch()
        await fleet.drained()
        assert fleet.fallen() == []
        refused = [line for member in frozen for line in member.said("lease.lost")]
        await fleet.stop_all()
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "SIGSTOP past the lease: complete, fail, discard, report and extend, each by one "
            "that has lost its job"
        ),
        faults=len(ENDINGS),
        in_flight=len(ENDINGS),
        stale_refused=len(refused),
        refused_outcomes=sorted(line["status"] for line in refused if "status" in line),
    )
    record(counts)
    assert after == before, "but for the lease, which its new holder extends"
    assert counts.stale_refused == len(ENDINGS)
    assert counts.figures["refused_outcomes"] == ["completed", "dlq", "failed"]
    assert counts.figures["ended"] == {"completed": len(ENDINGS)}


def _attempts(site: Site) -> list[int]:
    return [attempt for (attempt,) in site.rows("SELECT attempt_count FROM job_logs")]


def _rows(site: Site) -> list[tuple[Any, ...]]:
    return site.rows("SELECT to_jsonb(j) - 'lease_until' FROM job_logs j ORDER BY job_id")


@pytest.mark.fault("R2")
async def test_frozen_workers_under_load_finish_nothing_that_is_not_theirs(
    site: Site, record: Record
) -> None:
    lease = scale(1, 3)
    struck, frozen = [], []
    async with (
        a_fleet(site, 3, slots=30, PGQUEUE_LEASE=f"{lease}s") as fleet,
        producing(site, seconds=(0, 0.6), rate=20) as load,
    ):
        for _ in range(many(2, 40)):
            victim = await fleet.victim()
            fleet.freeze(victim)
            struck.append((victim.login, now()))
            await span(SETTLED)
            frozen.append((victim.login, now()))
            await span(lease + random.uniform(0.3, 1.5) - SETTLED)
            fleet.thaw(victim)
            await span(scale(0.3, 2))
        await load.stop()
        await fleet.drained()
        assert fleet.fallen() == []
        await fleet.stop_all()
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "SIGSTOP past the lease and SIGCONT, a random worker of three under load; recovery: "
            "until its jobs start again"
        ),
        faults=len(struck),
        in_flight=sum(ledger.open_at(moment, login) for login, moment in frozen),
        stale_refused=fleet.refused(),
        recovery=ledger.rescued_after(struck),
        lease=lease,
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
