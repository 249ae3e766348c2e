"""R19: texts that are hard to mask, to store or to print, wherever a text is masked, stored or
printed."""

import asyncio
from pathlib import Path

import pytest

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet
from tests.chaos.load import enqueue, producing
from tests.chaos.odd_tasks import TEXTS, WHERES
from tests.chaos.pages import batched, command, unreadable
from tests.chaos.site import Site
from tests.chaos.size import many, scale
from tests.chaos.web import Answer, Callers, an_api

ODD = {
    "PGQUEUE_MODULES": "tests.chaos.tasks,tests.chaos.odd_tasks,pgqueue_service.notifications",
    "MAIL_TRANSPORT": "log",
}
SIGN_IN = "user.signin.notification"
FORGED = "\x1b\x9b\u202e\u2066\u2028\x85"

STORABLE = [
    text.replace("\0", "").encode(errors="ignore").decode()
    for text in TEXTS.values()
    if text.strip()
]
"""As texts that a column of Postgres takes."""


@pytest.mark.fault("R19")
async def test_a_hostile_text_harms_its_own_job_at_most(site: Site, record: Record) -> None:
    jobs = [
        NewJob("odd.says", {"where": where, "text": text}, f"says-{turn}-{where}-{number}")
        for turn in range(many(1, 20))
        for number, text in enumerate(TEXTS)
        for where in WHERES
    ]
    async with (
        a_fleet(site, 2, slots=20, **ODD) as fleet,
        an_api(site, **ODD) as api,
        AsyncClient.open(site.url) as client,
        producing(site, 1, rate=20) as load,
    ):
        await enqueue(site, client, jobs)
        ids = [*_in_ids_and_users(site), *await _in_members(client)]
        strangers = _in_types(site)
        posted = await _posted(api.callers)
        await load.stop()
        await fleet.drained(scale(30, 400), apart_from=strangers, hastened=True)
        bad = await unreadable(api.callers, [*ids, *strangers])
        listed = await command(site, "dlq", "list", "--json")
        for job_id in strangers:
            site.rows("SELECT * FROM cancel_job(%s)", job_id)
        assert fleet.fallen() == []
        await fleet.stop_all()
        assert await api.stop() == 0
        logs = [member.log for member in fleet.all] + [api.log]
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "hostile texts in errors, causes, receipts, notes, log lines, ids, users, types and "
            "members"
        ),
        faults=len(jobs) + len(ids) + len(strangers) + len(posted),
        in_flight=ledger.given_back,
        handled=False,
        texts=len(TEXTS),
        slowest_of_the_others=ledger.p100("p"),
        pages_that_cannot_be_read=len(bad),
        answers=api.callers.codes,
    )
    record(counts)
    assert bad == []
    assert listed[0] == 0, listed[2]
    assert {answer.code for answer in posted} <= {202, 400, 409, 413}
    assert counts.figures["ended"].keys() == {"completed", "dlq"}
    assert [line for log in logs for line in _forged(log)] == []


def _in_ids_and_users(site: Site) -> list[str]:
    """By SQL, as any program may call a job."""
    statement = "SELECT job_id FROM enqueue_job('odd.quiet', '{}', job_id => %s, user_id => %s)"
    return [site.value(statement, text[:255], text[:190]) for text in STORABLE]


def _in_types(site: Site) -> list[str]:
    """Types that no program knows, inserted past the functions."""
    statement = (
        "INSERT INTO job_logs (job_id, job_type, user_id, payload) VALUES (%s, %s, 'u', '{}') "
        "RETURNING job_id"
    )
    return [
        site.value(statement, f"type-{number}", text[:255]) for number, text in enumerate(STORABLE)
    ]


async def _in_members(client: AsyncClient) -> list[str]:
    """Sign-ins whose mail goes to the log."""
    jobs = [
        NewJob(
            SIGN_IN,
            {"userId": f"u{number}-{member}", "email": "someone@example.com", "name": "A"}
            | {member: text},
        )
        for number, text in enumerate(STORABLE)
        for member in ("name", "userAgent", "provider", "ipAddress", "locale", "timestamp", "email")
    ]
    tickets = await client.enqueue_many(jobs)
    return [ticket.job_id for ticket in tickets if ticket.error is None]


async def _posted(callers: Callers) -> list[Answer]:
    """Ten at a time, up to the first that is not answered."""
    answers: list[Answer] = []
    for bodies in batched(_bodies(), 10):
        answers += await asyncio.gather(*map(callers.send, bodies))
        if not all(answer.code for answer in answers):
            break
    return answers


def _bodies() -> list[dict[str, object]]:
    """What is posted: each text as the id, the user, the type, and a member's name and value."""
    good = {"type": "odd.quiet", "payload": {}}
    texts = [text[:20_000] for text in TEXTS.values()]
    return [
        good | change
        for text in texts
        for change in (
            {"jobId": text},
            {"userId": text},
            {"type": text},
            {"payload": {text: text}},
            {text: text},
        )
    ]


def _forged(log: Path) -> list[str]:
    """Lines that are not one object of ours, or that hold what moves a reader's cursor."""
    text = log.read_text()
    assert not [one for one in FORGED if one in text], log
    ours = ('{"timestamp"', "pgqueue: TEST_LEDGER is no setting")
    return [line for line in text.split("\n") if line and not line.startswith(ours)]
