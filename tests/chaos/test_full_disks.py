"""R23: a disk that is full: that of the data, that of the write-ahead log, and that of an
archive."""

import asyncio
import json
import math
import random
import shutil
from contextlib import suppress
from datetime import datetime, timedelta

import psycopg
import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.disk import Disk, a_disk
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import enqueue
from tests.chaos.pages import command
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span
from tests.chaos.web import Callers, an_api
from tests.support.scene import until

INDEXES = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'job_logs'::regclass"

OLD = (
    "UPDATE job_logs SET created_at = now() - interval '3 h', processed_at = now() - interval '2 h'"
)

LARGE = {"seconds": 0.01, "more": "x" * 3000}


async def _data_on(site: Site, disk: Disk) -> None:
    site.rows(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    site.rows("ALTER TABLE job_logs SET TABLESPACE small")
    for (index,) in site.rows(INDEXES):
        site.rows(f"ALTER INDEX {index} SET TABLESPACE small")


async def _wal_on(site: Site, disk: Disk) -> None:
    """What is written ahead is on that disk from the next start on."""
    await asyncio.to_thread(site.server.stop)
    old, new = site.server.home / "data" / "pg_wal", disk.folder / "pg_wal"
    shutil.copytree(old, new)
    shutil.rmtree(old)
    old.symlink_to(new)
    for path in (new, *new.rglob("*")):
        shutil.chown(path, disk.folder.stat().st_uid, disk.folder.stat().st_gid)
    site.server.settings |= {"max_wal_size": "32MB", "min_wal_size": "32MB"}
    await asyncio.to_thread(site.server.start)


@pytest.mark.fault("R23")
@pytest.mark.parametrize("what", ["data", "wal"])
async def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(
    site: Site, record: Record, what: str
) -> None:
    struck: list[datetime] = []
    back: list[datetime] = []
    with a_disk(site.server.home / "small", 96) as disk:
        await (_data_on if what == "data" else _wal_on)(site, disk)
        async with (
            a_fleet(site, 2, slots=20, PGQUEUE_LEASE="10s") as fleet,
            an_api(site) as api,
        ):
            callers = api.callers
            callers.payload = LARGE
            async with callers.calling(scale(60, 200)):
                for _ in range(many(1, 10)):
                    await span(scale(0.5, 10))
                    disk.fill()
                    struck.append(now())
                    await until(
                        lambda: _refused(site, callers, struck[-1]), 60, "the first refusal"
                    )
                    await span(scale(1, 30))
                    disk.free()
                    back.append(now())
                    await until(
                        lambda: _accepts(site, callers, back[-1]), 60, "an enqueue that is accepted"
                    )
            await fleet.drained()
            assert fleet.fallen() == []
            await fleet.stop_all()
            assert await api.stop() == 0
        ledger = site.ledger()
        await asyncio.to_thread(site.server.stop, "immediate")
    counts = count(
        ledger,
        what=f"the disk of {'the data' if what == 'data' else 'the write-ahead log'} filled to "
        "its last byte under load; "
        "recovery: from when there is room to an accepted enqueue",
        faults=len(struck),
        in_flight=sum(map(ledger.open_at, struck)) + sum(map(ledger.open_at, back)),
        stale_refused=fleet.refused(),
        recovery=max(_accepted_after(callers, moment) for moment in back),
        answers=callers.codes,
    )
    record(counts)
    assert set(callers.codes) <= {"202", "503"}
    assert counts.figures["ended"].keys() == {"completed"}


def _refused(site: Site, callers: Callers, moment: datetime) -> bool:
    with suppress(psycopg.Error):
        site.rows("SELECT pg_switch_wal()")  # what there is of log files is used up sooner
    return any(one.sent > moment and one.code != 202 for one in callers.answers)


def _accepted_after(callers: Callers, moment: datetime) -> float:
    """Seconds; inf: not yet."""
    ends = (
        one.sent + timedelta(seconds=one.took)
        for one in callers.answers
        if one.code == 202 and one.sent > moment
    )
    return min(((end - moment).total_seconds() for end in ends), default=math.inf)


async def _accepts(site: Site, callers: Callers, moment: datetime) -> bool:
    """Somebody starts a server again that found no room for its log, and ended."""
    if site.server.pid is None:
        await asyncio.to_thread(site.server.start)
    return _accepted_after(callers, moment) < math.inf


@pytest.mark.fault("R23")
async def test_what_prune_removed_is_in_the_archive_however_full_its_disk_was(
    site: Site, record: Record
) -> None:
    number = many(1200, 20_000)
    keep = {"PGQUEUE_KEEP_COMPLETED": "1h", "PGQUEUE_KEEP_DLQ": "1h"}
    jobs = [NewJob("chaos.work", LARGE | {"seconds": 0}, f"old-{n}") for n in range(number)]
    async with a_fleet(site, 1, slots=100) as fleet, AsyncClient.open(site.url) as client:
        await enqueue(site, client, jobs)
        await fleet.drained(scale(30, 300))
        await fleet.stop_all()
    ledger = site.ledger()
    site.rows(OLD)
    with a_disk(site.folder / "archive", 16 + number // 100) as disk:
        codes = []
        for _ in range(many(2, 20)):
            disk.fill(leave=random.randrange(2_500_000))
            code, _, said = await command(site, "prune", "--archive", str(disk.folder), **keep)
            codes.append(code)
            assert code == 0 or "No space left on device" in said, said
            assert code == 0 or "cannot reach the database" not in said, said
            disk.free()
        code, _, said = await command(site, "prune", "--archive", str(disk.folder), **keep)
        text = "".join(part.read_text() for part in disk.folder.glob("*.jsonl"))
    left = site.value("SELECT count(*) FROM job_logs")
    found = [json.loads(line)["job_id"] for line in text.splitlines()]
    counts = count(
        ledger,
        what="prune with an archive whose disk has room for a part, repeated once there is room",
        faults=sum(code != 0 for code in codes),
        in_flight=0,
        archived=len(set(found)),
        archived_twice=len(found) - len(set(found)),
    )
    record(counts)
    assert code == 0, said
    assert counts.faults > 0
    assert left == 0
    assert set(found) == ledger.accepted
