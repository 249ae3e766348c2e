"""R20: a mail server that refuses some recipients, and one that refuses everybody for a quota."""

import asyncio
import itertools
import time
from collections import Counter

import pytest
from pgqueue_service.notifications.mail.message import message_id

from pgqueue import AsyncClient, NewJob
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.faults.sink import Refuse, Sink
from tests.chaos.fleet import a_fleet, now
from tests.chaos.ledger import Ledger, lines
from tests.chaos.load import enqueue
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import many, scale, size, span

SIGN_IN = "user.signin.notification"
MOST_BURNED = 50
OTHERS_WAIT = 5
"""Seconds within which a mail that is not refused is with the server."""

ABOUT_ONE = (
    "450 4.2.0 Greylisted, try again in 5 minutes",
    "450 4.2.1 The user is receiving mail too quickly",
    "452 4.2.2 Mailbox full",
    "450 4.1.8 Recipient address rejected: Domain not found",
    "451 4.7.1 Try again later, we do not know you yet",
    "450 Requested mail action not taken: mailbox unavailable",
)
"""What a server says of one recipient."""

ABOUT_US = (
    "550 5.4.5 Daily user sending quota exceeded",
    "554 5.7.1 Relay access denied",
    "550 5.7.1 Relaying denied",
    "554 Message rejected: Email address is not verified",
    "550 5.2.251 Sending limit exceeded",
    "550-5.4.5 Daily sending quota exceeded.\r\n550 5.4.5 For more information see the manual",
)
"""What a server says to everybody, at RCPT and at the end of the message."""


def by_mail(sink: Sink) -> dict[str, str]:
    server = {
        "MAIL_TRANSPORT": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(sink.port),
        "MAIL_FROM": "a@example.org",
    }
    return server | {"PGQUEUE_MODULES": "pgqueue_service.notifications"}


def sign_in(name: str, **more: int) -> NewJob:
    payload = {"userId": name, "email": f"{name}@example.com", "name": "A"}
    return NewJob(SIGN_IN, payload, name, max_attempts=more.get("max_attempts"))


@pytest.mark.fault("R20")
async def test_a_server_that_refuses_some_recipients_delays_nobody_else_s_mail(
    site: Site, record: Record
) -> None:
    """Half of the refused are taken at a second try, half never; none has the breaker opened."""
    tries: Counter[str] = Counter()
    said = itertools.cycle(ABOUT_ONE)

    def refuse(step: str, to: str) -> str | None:
        if step != "RCPT" or not to.startswith(("grey", "full")):
            return None
        tries[to] += 1
        return next(said) if to.startswith("full") or tries[to] == 1 else None

    mails = site.folder / "mails"
    sink, sent, opened = Sink(Book(mails), refuse), dict[str, float](), 0
    await sink.start()
    async with (
        a_fleet(site, 2, slots=50, **by_mail(sink)) as fleet,
        AsyncClient.open(site.url) as client,
    ):
        await enqueue(site, client, [sign_in("first")])
        await fleet.drained()
        for turn in range(many(40, 3600)):
            refused = [sign_in(f"grey-{turn}"), sign_in(f"full-{turn}", max_attempts=many(2, 5))]
            await enqueue(site, client, refused)
            sent[f"good-{turn}"] = time.monotonic()
            await enqueue(site, client, [sign_in(f"good-{turn}")])
            opened += _is_open(site)
            await span(scale(0.15, 1))
        await fleet.drained(scale(40, 120))
        opened += _is_open(site)
        sink.stop()
        assert fleet.fallen() == []
        await fleet.stop_all()
    waits = [sink.taken[f"{name}@example.com"] - began for name, began in sent.items()]
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "450 to two of three recipients: half of these for good; recovery: the longest that "
            "another's mail took"
        ),
        faults=sink.refused,
        in_flight=0,
        handled=False,
        recovery=max(waits),
        slowest_other_mail=round(max(waits), 3),
        median_other_mail=round(sorted(waits)[len(waits) // 2], 3),
        seen_open=opened,
        mails=len(lines(mails)),
        mails_twice=len(lines(mails)) - len(set(lines(mails))),
    )
    record(counts)
    ended = Counter((job.partition("-")[0], status) for job, status in ledger.statuses.items())
    turns = len(sent)
    assert ended == {
        ("first", "completed"): 1,
        ("good", "completed"): turns,
        ("grey", "completed"): turns,
        ("full", "dlq"): turns,
    }
    assert opened == 0, "the server lives: its breaker has nothing to open for"
    assert max(waits) < OTHERS_WAIT
    assert counts.figures["mails_twice"] == 0


def _is_open(site: Site) -> int:
    return int(site.value("SELECT count(*) FROM job_dependencies WHERE state <> 'closed'"))


@pytest.mark.fault("R20")
async def test_a_server_that_refuses_everybody_has_nothing_discarded(
    site: Site, record: Record
) -> None:
    """Some at RCPT, some at the end of the message."""
    number, outage, parts = many(200, 20_000), scale(3, 3600), 20
    over = asyncio.Event()
    mails = site.folder / "mails"
    sink = Sink(Book(mails), _until(over))
    await sink.start()
    async with (
        a_fleet(site, 2, slots=50, **by_mail(sink)) as fleet,
        AsyncClient.open(site.url) as client,
    ):
        for part in range(parts):
            names = range(part * number // parts, (part + 1) * number // parts)
            await enqueue(site, client, [sign_in(f"u{name}") for name in names])
            await span(outage / parts)
        dead = site.value("SELECT count(*) FROM job_logs WHERE status = 'dlq'")
        refused = sink.refused
        over.set()
        back = now()
        await fleet.drained(scale(40, 300), hastened=size() == 0)
        sink.stop()
        assert fleet.fallen() == []
        await fleet.stop_all()
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            f"all refused for a quota or as not allowed, for {outage:g} s; recovery: to the next "
            "mail"
        ),
        faults=refused,
        in_flight=0,
        handled=False,
        recovery=ledger.resumed_after(back),
        dead_meanwhile=dead,
        attempts_burned=_burned(ledger),
        mails=len(lines(mails)),
        mails_twice=len(lines(mails)) - len(set(lines(mails))),
    )
    record(counts)
    assert counts.figures["ended"] == {"completed": number}, "nothing was discarded"
    assert counts.figures["attempts_burned"] < MOST_BURNED
    assert sorted(lines(mails)) == sorted(
        message_id(job, "example.org") for job in ledger.accepted
    ), "each mail, once"


def _until(over: asyncio.Event) -> Refuse:
    said = itertools.cycle(ABOUT_US)

    def refuse(step: str, to: str) -> str | None:
        where = ("RCPT", "DOT")[sum(to.encode()) % 2]
        return None if over.is_set() or step != where else next(said)

    return refuse


def _burned(ledger: Ledger) -> int:
    return sum(
        event.kind == "end" and event.status in ("failed", "dlq") and event.burned
        for event in ledger.events
    )
