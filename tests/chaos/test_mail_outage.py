"""R13: the mail server is down while jobs arrive, with the service's own worker."""

import pytest
from pgqueue_service.notifications.mail.message import message_id

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.sink import Sink
from tests.chaos.fleet import a_fleet, now
from tests.chaos.ledger import Ledger, lines
from tests.chaos.load import enqueue
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import many, scale, span

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

LONGEST_PROBE_PAUSE = 15
MOST_BURNED = 50


def _sign_ins(first: int, number: int) -> list[NewJob]:
    return [
        NewJob(
            "user.signin.notification",
            {"userId": f"u{n}", "email": f"u{n}@example.com", "name": "A"},
            f"sign-in-{n}",
        )
        for n in range(first, first + number)
    ]


@pytest.mark.fault("R13")
async def test_a_mail_server_that_is_down_kills_no_job_and_burns_few_attempts(
    site: Site, record: Record
) -> None:
    number, outage, parts = many(400, 50_000), scale(6, 600), 20
    mails = site.folder / "mails"
    sink = Sink(Book(mails))
    await sink.start()
    mail = {
        "MAIL_TRANSPORT": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(sink.port),
        "MAIL_FROM": "a@example.org",
    }
    async with (
        a_fleet(
            site, 2, slots=50, PGQUEUE_MODULES="pgqueue_service.notifications", **mail
        ) as fleet,
        AsyncClient.open(site.url) as client,
    ):
        await enqueue(site, client, _sign_ins(0, 20))
        await fleet.drained()
        sink.stop()
        for part in range(parts):
            await enqueue(site, client, _sign_ins(20 + part * number // parts, number // parts))
            await span(outage / parts)
        waiting = site.live()
        await sink.start()
        back = now()
        await fleet.drained(outage + 120)
        sink.stop()
        assert fleet.fallen() == []
    ledger = site.ledger()
    nearly_all = ledger.completed_at[
        20 : -(number // 50)
    ]  # but for those that wait for their backoff
    drained = (nearly_all[-1] - nearly_all[0]).total_seconds()
    counts = count(
        ledger,
        what=(
            f"mail server down for {outage:g} s, {number} sign-ins meanwhile; recovery: from its "
            "return to the next mail"
        ),
        faults=1,
        in_flight=0,
        handled=False,
        recovery=ledger.resumed_after(back),
        waiting_at_its_return=waiting,
        attempts_burned=_burned(ledger),
        mails=len(lines(mails)),
        mails_twice=len(lines(mails)) - len(set(lines(mails))),
        backlog_drained_at_jobs_a_second=round(len(nearly_all) / drained),
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}, "the dead-letter queue is empty"
    assert counts.figures["attempts_burned"] < MOST_BURNED
    assert {message_id(job, "example.org") for job in ledger.accepted} <= set(lines(mails)), (
        "every mail was delivered"
    )
    assert ledger.resumed_after(back) < LONGEST_PROBE_PAUSE * 1.1 + SLACK


def _burned(ledger: Ledger) -> int:
    return sum(
        event.kind == "end" and event.status in ("failed", "dlq") and event.burned
        for event in ledger.events
    )
