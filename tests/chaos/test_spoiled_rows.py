"""R19: rows that an operator or an application spoiled, past all functions, or a disk."""

import asyncio
import re
import secrets

import psycopg
import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet
from tests.chaos.load import enqueue, producing
from tests.chaos.pages import command, unreadable
from tests.chaos.site import Site
from tests.chaos.size import scale, size, span
from tests.chaos.web import an_api

SPOILS = {
    "history": ("'{}'", "'null'", "'7'", "'[1, \"x\", null, {}]'", "'[{\"at\": 5}]'", "'[[[[]]]]'"),
    "payload": (
        "'{\"n\": 1e5000}'",
        "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
        "'null'",
        "'7'",
        "('{\"n\": ' || repeat('9', 5000) || '}')::jsonb",
    ),
    "created_at": ("'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12026-01-01'"),
    "started_at": ("'infinity'", "'0044-03-15 BC'", "NULL"),
    "lease_until": ("'-infinity'", "'0044-03-15 BC'", "'1970-01-01'"),
    "locked_by": ("NULL", "''", "repeat('x', 5000)"),
    "progress": ("'NaN'", "'Infinity'", "-7"),
    "progress_note": ("repeat('x', 100000)", "E'a@b.example\\n\\u202e'"),
    "error": ("repeat('a@', 50000)", "''", "E'\\x1b[2J'"),
    "stack_trace": ("repeat('x', 1000000)",),
    "user_id": ("''", "repeat('.', 250)"),
    "max_attempts": ("1000", "1"),
    "receipt": ("repeat('a@', 50000)",),
}
"""Column -> what it is set to. A CHECK may refuse it; then there is nothing to survive."""

STATES = {
    "waiting": "status = 'failed', attempt_count = 1, error = 'x'",
    "left": """status = 'processing', attempt_count = 1, lease = 1, started_at = now(),
                 locked_by = 'gone',
               lease_until = now() - interval '1 min'""",
    "dead": """status = 'dlq', attempt_count = 5, lease = 5,
                 processed_at = now() - interval '1 day',
               dead_at = now() - interval '1 day', error = 'x'""",
    "done": (
        "status = 'completed', attempt_count = 1, lease = 1, processed_at = now() - interval '1 "
        "day'"
    ),
}


@pytest.mark.fault("R19")
async def test_a_spoiled_row_harms_itself_only(site: Site, record: Record) -> None:
    names = [
        f"{state}-{column}-{n}"
        for state in STATES
        for column, values in SPOILS.items()
        for n in range(len(values) if size() else min(len(values), 2))
    ]
    damaged = await _damaged(site)
    async with AsyncClient.open(site.url) as client:
        await enqueue(
            site, client, [NewJob("chaos.work", {"seconds": 0.01}, name) for name in names]
        )
    spoiled = [name for name in names if _spoil(site, name)]
    async with (
        a_fleet(site, 2, slots=20) as fleet,
        an_api(site) as api,
        producing(site, 1, rate=30) as load,
    ):
        await span(scale(2, 30))
        await load.stop()
        await fleet.drained(scale(30, 120), apart_from=damaged)
        heard = site.value("SELECT max(now() - seen_at) < interval '10 s' FROM job_workers")
        bad = await unreadable(api.callers, spoiled)
        listed = await command(site, "dlq", "list", "--json", "--limit", "1000")
        exported = await command(site, "dlq", "export", "--output", str(site.folder / "dead"))
        ledger = site.ledger()
        archive = {"PGQUEUE_KEEP_COMPLETED": "1h", "PGQUEUE_KEEP_DLQ": "1h"}
        pruned = await command(site, "prune", "--archive", str(site.folder / "archive"), **archive)
        assert fleet.fallen() == []
        await fleet.stop_all()
        assert await api.stop() == 0
    left = {job for (job,) in site.rows("SELECT job_id FROM job_logs")}
    counts = count(
        ledger,
        what=(
            "columns of waiting, abandoned, dead and completed jobs set to what they should not "
            "be, and damaged pages"
        ),
        faults=len(spoiled) + len(damaged),
        in_flight=len(names),
        handled=False,
        refused_by_a_rule=len(names) - len(spoiled),
        slowest_of_the_others=ledger.p100("p"),
        pages_that_cannot_be_read=len(bad),
        removed_into_the_archive=len(ledger.statuses.keys() - left),
    )
    record(counts)
    assert not bad, bad
    assert heard, "the sweeps went on"
    assert [done[0] for done in (listed, exported, pruned)] == [0, 0, 0], (
        listed[2],
        exported[2],
        pruned[2],
    )
    assert ledger.statuses.keys() - left == _archived(site)
    assert {ledger.statuses[job] for job in ledger.accepted if job.startswith("p")} == {"completed"}


def _archived(site: Site) -> set[str]:
    lines = "".join(file.read_text() for file in (site.folder / "archive").iterdir()).splitlines()
    # Not by a parser: what no program can read whole is what some of these rows hold.
    return {re.findall(r'"job_id": ?"([^"]*)"', line)[0] for line in lines}


def _spoil(site: Site, name: str) -> bool:
    """Whether the database let it be spoiled."""
    state, column, number = name.split("-")
    site.rows(f"UPDATE job_logs SET {STATES[state]} WHERE job_id = %s", name)
    try:
        site.rows(
            f"UPDATE job_logs SET {column} = {SPOILS[column][int(number)]} WHERE job_id = %s", name
        )
    except psycopg.errors.IntegrityError:
        return False
    return True


async def _damaged(site: Site) -> list[str]:
    """Jobs that wait, whose payloads a disk has zeroed; they are as due as any other."""
    names = [f"damaged-{number}" for number in range(3)]
    async with AsyncClient.open(site.url) as client:
        payload = {"seconds": 0, "more": secrets.token_hex(10_000)}
        await enqueue(
            site, client, [NewJob("chaos.work", payload, name, priority=0) for name in names]
        )
    site.rows("CHECKPOINT")
    path = site.value(
        "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = 'job_logs'::regclass"
    )
    file = site.server.home / "data" / path
    await asyncio.to_thread(site.server.stop)
    file.write_bytes(bytes(file.stat().st_size))
    await asyncio.to_thread(site.server.start)
    return names
