"""What mail servers and providers really say, at each step of the dialogue, and what it is about:
us, the server, or this one mail.

Every reply goes through a server on loopback.
"""

import asyncio
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications import lifespan, send_custom_email
from pgqueue_service.notifications.custom_email import JOB_TYPE
from pgqueue_service.notifications.mail.transports import open_transport
from pgqueue_service.notifications.mail.transports.replies import (
    MAIL_STEPS,
    Reply,
    Subject,
    subject,
)
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.errors import DependencyDown, Discard, Ending, Retry
from pgqueue.job import NewJob
from pgqueue.testing import working
from tests.support.factories import sql, the_job, value
from tests.support.mail_replies import OF_THE_SERVER, OF_THIS_MAIL, OF_US
from tests.support.mailservers import Script, a_mail, scripted, smtp_settings
from tests.support.scene import published, until

Connection = AsyncConnection[Any]

TO = "user.name@example.com"
SCRIPTED = {
    "greeting": "greeting",
    "EHLO": "EHLO",
    "login": "AUTH",
    "MAIL FROM": "MAIL",
    "RCPT TO": "RCPT",
    "DATA": "DATA",
    "end of data": "DOT",
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def refused(step: str, reply: str, to: str = TO) -> Ending:
    """How an attempt ends whose server answers so at that step."""
    script: dict[str, Any] = {SCRIPTED[step]: reply.replace("{to}", to)}
    login = {}
    if step == "login":
        script["EHLO"] = "250-hello\r\n250 AUTH PLAIN"
        login = {"smtp_user": "mailer", "smtp_password": "correct horse"}
    async with (
        scripted(script) as server,
        open_transport(smtp_settings(server.port, **login)) as transport,
    ):
        with pytest.raises(Ending) as ended:
            await transport.send(a_mail(to=to))
    return ended.value


@pytest.mark.parametrize(("step", "reply"), OF_THIS_MAIL)
async def test_what_concerns_one_mail_blames_nothing_else(step: str, reply: str) -> None:
    ending = await refused(step, reply)
    assert type(ending) is (Retry if reply[0] == "4" else Discard)
    assert ending.answered


@pytest.mark.parametrize(("step", "reply"), OF_US)
async def test_what_concerns_us_discards_nothing_and_opens_the_breaker(
    step: str, reply: str
) -> None:
    ending = await refused(step, reply)
    assert type(ending) is DependencyDown
    assert (ending.after is not None) == (step in MAIL_STEPS)


@pytest.mark.parametrize(("step", "reply"), OF_THE_SERVER)
async def test_what_concerns_the_server_is_blamed_on_it(step: str, reply: str) -> None:
    ending = await refused(step, reply)
    if isinstance(ending, Retry):
        assert reply[0] == "4"
        assert not ending.answered
    else:
        assert type(ending) is DependencyDown


def without_enhanced(reply: str) -> str:
    return " ".join(word for word in reply.split(" ") if not word.startswith(("4.", "5.")))


def on_two_lines(reply: str) -> str:
    code, _, text = reply.partition(" ")
    middle = text.find(" ", len(text) // 2)
    return reply if middle < 0 else f"{code}-{text[:middle]}\r\n{code} {text[middle + 1 :]}"


@pytest.mark.parametrize(("step", "reply"), [one for one in OF_US if "\r\n" not in one[1]])
async def test_a_reply_on_two_lines_or_in_capitals_means_the_same(step: str, reply: str) -> None:
    assert type(await refused(step, on_two_lines(reply))) is DependencyDown
    assert type(await refused(step, reply.upper().replace("{TO}", "{to}"))) is DependencyDown


@pytest.mark.parametrize(
    ("step", "reply"), [one for one in OF_US if one[1][3:5] == " 5" and len(one[1]) > 40]
)
async def test_words_are_enough_where_a_server_has_no_enhanced_codes(step: str, reply: str) -> None:
    known_by_code_alone = (
        "https://",
        "TenantAttribution",
        "This mail is unauthenticated",
        "user account disabled",
    )
    if not any(words in reply for words in known_by_code_alone):
        assert type(await refused(step, without_enhanced(reply))) is DependencyDown


@pytest.mark.parametrize(
    "to",
    [
        "daily.sending.limit.exceeded@example.com",
        "relay-access-denied@example.com",
        "your+account+suspended@example.com",
        "sender-not-verified@relay-denied.example.com",
        "not_authorized_to_send@example.com",
    ],
)
@pytest.mark.parametrize(
    "reply",
    [
        "550 <{to}>: no such user",
        "550 {to} unknown",
        "550 5.1.1 {to}... User unknown",
        "550 {local} is not a user of {domain}",
        "550 sorry, no mailbox here by that name: '{local}' ({domain})",
    ],
)
async def test_an_address_that_reads_like_a_quota_opens_no_breaker(to: str, reply: str) -> None:
    local, _, domain = to.partition("@")
    assert (
        type(
            await refused(
                "RCPT TO", reply.replace("{local}", local).replace("{domain}", domain), to
            )
        )
        is Discard
    )


@pytest.mark.parametrize("code", [0, 99, 200, 299, 300, 354, 399, 600, 999])
@pytest.mark.parametrize("step", sorted(MAIL_STEPS))
def test_a_code_that_is_no_refusal_is_the_servers_fault(step: str, code: int) -> None:
    assert subject(step, Reply(code, "what", TO)) is Subject.SERVER


@given(st.sampled_from(sorted(SCRIPTED)), st.integers(400, 599), st.text(max_size=300), st.emails())
def test_any_reply_is_about_something(step: str, code: int, text: str, to: str) -> None:
    found = subject(step, Reply(code, text, to))
    assert step in MAIL_STEPS or found is not Subject.MAIL


@given(st.integers(0, 9), st.integers(0, 999), st.integers(500, 599))
def test_an_unclear_refusal_for_good_of_one_recipient_is_never_repeated(
    area: int, detail: int, code: int
) -> None:
    """The contract: dead at once. Unless the code says that it is about us or the server."""
    text = f"5.{area}.{detail} no"
    if subject("RCPT TO", Reply(code, text, TO)) is not Subject.MAIL:
        known = (area, detail) in [(1, 7), (1, 8), (1, 90), (3, 2), (3, 5), (4, 5)] or (
            area in (2, 7) and detail >= 3
        )
        assert known or code in (503, 521, 523, 525, 530, 534, 535, 538)


def test_any_length_of_reply_is_read_in_bounded_time() -> None:
    """30 KB, as much as the connection takes, of what makes patterns backtrack: a minute if one of
    them did."""
    pieces = [
        "your ",
        "sender ",
        "relay ",
        "not ",
        "a@",
        "<",
        "5.7.1 ",
        "limit ",
        "http://",
        "said",
        "x",
        " ",
        "\n",
        "not not ",
    ]
    chance = random.Random(1)
    began = time.monotonic()
    for piece in pieces:
        subject("RCPT TO", Reply(550, piece * (30_000 // len(piece)), TO))
    for _ in range(50):
        subject("RCPT TO", Reply(450, "".join(chance.choice(pieces) for _ in range(8_000)), TO))
    assert time.monotonic() - began < 20


# --- with a worker


def custom(to: str) -> dict[str, str]:
    return {"to": to, "subject": "Hello", "body": "Hello"}


async def at_work(
    connection: Connection, settings: ServiceSettings, script: Script, mails: list[str], good: str
) -> None:
    """Mails to those addresses, and then the good one, which has to come through."""
    await published(connection, settings, send_custom_email)
    async with scripted(script) as server:
        settings = mailing_to(settings, server.port)
        async with (
            AsyncClient.open(settings) as client,
            working(settings, send_custom_email, lifespan=lifespan),
        ):
            await client.enqueue_many([NewJob(JOB_TYPE, custom(to)) for to in mails])
            await until(lambda: tried(connection, len(mails)))
            await client.enqueue(JOB_TYPE, custom(good), job_id="good")
            await until(lambda: completed(connection, "good"))


def mailing_to(settings: ServiceSettings, port: int) -> ServiceSettings:
    """Over one connection, so that the server's script goes on from mail to mail."""
    mailing = smtp_settings(port, smtp_connections=1)
    names = (
        "mail_transport",
        "smtp_host",
        "smtp_port",
        "mail_from",
        "mail_timeout",
        "smtp_connections",
    )
    return settings.with_(**{name: getattr(mailing, name) for name in names})


async def tried(connection: Connection, count: int) -> bool:
    return bool(
        await value(
            connection, "SELECT count(*) >= %s FROM job_logs WHERE error IS NOT NULL", [count]
        )
    )


async def completed(connection: Connection, job_id: str) -> bool:
    return bool((await the_job(connection, job_id))["status"] == "completed")


@pytest.mark.postgres(15, 18)
async def test_recipients_that_are_refused_for_a_while_hold_up_no_other(
    connection: Connection, settings: ServiceSettings
) -> None:
    script: Script = {"RCPT": ["450 4.2.0 greylisted"] * 30 + ["250 ok"]}
    await at_work(
        connection,
        settings,
        script,
        [f"user{n}@example.com" for n in range(30)],
        "good@example.com",
    )
    assert await value(connection, "SELECT count(*) FROM job_dependencies") == 0


@pytest.mark.postgres(15, 18)
async def test_a_quota_loses_nothing_and_burns_nothing(
    connection: Connection, settings: ServiceSettings
) -> None:
    """The quota is used up, then comes back; what was refused waits, and is sent."""
    await published(connection, settings, send_custom_email)
    script: Script = {"DOT": ["550 5.4.5 Daily user sending quota exceeded"] * 8 + ["250 ok"]}
    async with scripted(script) as server:
        settings = mailing_to(settings, server.port).with_(queues={"default": 4})
        async with (
            AsyncClient.open(settings) as client,
            working(settings, send_custom_email, lifespan=lifespan),
        ):
            await client.enqueue_many(
                [NewJob(JOB_TYPE, custom(f"user{n}@example.com")) for n in range(20)]
            )
            await until(lambda: is_open(connection))
            assert (
                await value(
                    connection,
                    "SELECT max(attempt_count) FROM job_logs WHERE status <> 'processing'",
                )
                == 0
            )
            while await value(
                connection, "SELECT count(*) < 20 FROM job_logs WHERE status = 'completed'"
            ):
                await sql(
                    connection, "UPDATE job_dependencies SET probe_at = now() WHERE state = 'open'"
                )
                await sql(
                    connection,
                    (
                        "UPDATE job_logs SET run_after = now() WHERE status = 'enqueued' AND "
                        "run_after > now()"
                    ),
                )
                await asyncio.sleep(0.05)
    assert await value(connection, "SELECT max(attempt_count) FROM job_logs") == 1


async def is_open(connection: Connection) -> bool:
    return bool(
        await value(connection, "SELECT EXISTS (SELECT FROM job_dependencies WHERE state = 'open')")
    )
