"""A mail of which nobody knows whether it went out: announced as late as can be, told apart from
one that surely did not, and then sent again or held, as the settings say."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pgqueue_service.notifications import lifespan, notify_of_sign_in
from pgqueue_service.notifications.mail.mailer import UNCERTAIN
from pgqueue_service.notifications.mail.message import message_id
from pgqueue_service.notifications.mail.transports import open_transport
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.errors import DependencyDown, Discard, Ending, LeaseLost, Retry, SettingsError
from pgqueue.settings import settings_from
from pgqueue.testing import working
from pgqueue.worker.worker import Worker
from tests.support.factories import a_job, sql, the_job, value
from tests.support.mailservers import (
    PATIENT,
    SHORT,
    Drop,
    Hang,
    a_mail,
    listening,
    scripted,
    sendgrid,
    sendgrid_settings,
    smtp_settings,
)
from tests.support.post_office import PostOffice, post_office
from tests.support.scene import published, until

Connection = AsyncConnection[Any]

PAYLOAD = {"userId": "u1", "email": "someone@example.com", "name": "Болд"}
DIED = {
    "job_type": "user.signin.notification",
    "payload": PAYLOAD,
    "user_id": "u1",
    "status": "processing",
    "lease_until": timedelta(seconds=-1),
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def by_smtp(settings: ServiceSettings, office: PostOffice, **changes: Any) -> ServiceSettings:
    mail = smtp_settings(office.port)
    names = ("mail_transport", "smtp_host", "smtp_port", "mail_from", "mail_timeout")
    return settings.with_(**{name: getattr(mail, name) for name in names} | changes)


@asynccontextmanager
async def at_work(
    connection: Connection, settings: ServiceSettings
) -> AsyncIterator[tuple[AsyncClient, Worker]]:
    await published(connection, settings, notify_of_sign_in)
    async with (
        AsyncClient.open(settings) as client,
        working(settings, notify_of_sign_in, lifespan=lifespan) as worker,
    ):
        yield client, worker


async def is_(connection: Connection, status: str) -> bool:
    return bool((await the_job(connection, "j"))["status"] == status)


async def intent(connection: Connection) -> Any:
    return await value(connection, "SELECT intent_at FROM job_logs WHERE job_id = 'j'")


class Announced:
    """An `intend` that counts its calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.times = 0
        self.error = error

    async def __call__(self) -> None:
        self.times += 1
        if self.error is not None:
            raise self.error


# --- when the intent is written


async def test_by_smtp_it_is_written_when_the_server_is_ready_and_before_it_has_a_byte(
    connection: Connection, settings: ServiceSettings
) -> None:
    """The intent's statement waits for the row, which is being taken away: the server says 354 and
    gets nothing at all."""
    async with post_office() as office, await AsyncConnection.connect(settings.conninfo) as other:
        seen: dict[str, Any] = {}

        async def doorman(step: str, to: str) -> bool:
            seen[step] = await intent(connection)
            if step == "data":
                await sql(other, "SELECT cancel_job('j')")
            if step == "go on":
                await until(lambda: is_waiting(connection, "pgqueue writes"))
                await other.commit()
            return True

        office.doorman = doorman
        async with at_work(connection, by_smtp(settings, office)) as (client, worker):
            await client.enqueue(notify_of_sign_in, PAYLOAD, job_id="j")
            await until(lambda: bool(office.cut))
            await until(lambda: not worker.inflight.attempts)
    assert seen == {"sender": None, "data": None, "go on": None}
    assert office.cut == [("someone@example.com", b"")]
    assert office.delivered == []


async def is_waiting(connection: Connection, name: str) -> bool:
    return bool(
        await value(
            connection,
            """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = %s
                  AND wait_event_type = 'Lock'""",
            [name],
        )
    )


async def test_by_smtp_it_stands_while_the_server_has_the_mail_and_goes_with_the_receipt(
    connection: Connection, settings: ServiceSettings
) -> None:
    seen: dict[str, bool] = {}
    async with post_office() as office:

        async def doorman(step: str, to: str) -> bool:
            seen[step] = await intent(connection) is not None
            return True

        office.doorman = doorman
        async with at_work(connection, by_smtp(settings, office)) as (client, _):
            await client.enqueue(notify_of_sign_in, PAYLOAD, job_id="j")
            await until(lambda: is_(connection, "completed"))
    row = await the_job(connection, "j")
    assert (seen["sender"], seen["data"], seen["taken"]) == (False, False, True)
    assert (row["intent_at"], row["receipt"]) == (None, "smtp 250 2.0.0 Ok: queued as 1")


async def test_by_sendgrid_it_is_written_before_the_request(
    connection: Connection, settings: ServiceSettings
) -> None:
    seen: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        seen.append(await intent(connection))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nX-Message-Id: abc-123\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async with listening(serve, None) as port:
        mail = sendgrid_settings(port)
        names = (
            "mail_transport",
            "sendgrid_api_key",
            "sendgrid_from_email",
            "sendgrid_url",
            "mail_timeout",
        )
        async with at_work(
            connection, settings.with_(**{name: getattr(mail, name) for name in names})
        ) as (client, _):
            await client.enqueue(notify_of_sign_in, PAYLOAD, job_id="j")
            await until(lambda: is_(connection, "completed"))
    assert len(seen) == 1
    assert seen[0] is not None
    row = await the_job(connection, "j")
    assert (row["intent_at"], row["receipt"]) == (None, "sendgrid 202 abc-123")


async def test_by_sendgrid_nobody_is_called_before_it_is_written() -> None:
    opened: list[int] = []
    async with sendgrid(202) as server, open_transport(sendgrid_settings(server.port)) as transport:

        async def intend() -> None:
            opened.append(server.opened)
            raise LeaseLost("somebody else has it")

        with pytest.raises(LeaseLost):
            await transport.send(a_mail(), intend)
        assert opened == [server.opened] == [0]


async def test_a_mail_that_is_only_logged_is_in_no_doubt(
    connection: Connection, settings: ServiceSettings
) -> None:
    announced = Announced()
    async with open_transport(ServiceSettings()) as transport:
        await transport.send(a_mail(), announced)
    assert announced.times == 0


# --- what is in doubt, and what is not

AFTER_IT = ["DOT"]
BEFORE_IT = ["greeting", "EHLO", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("action", [Drop(), Hang()], ids=["dropped", "silent"])
@pytest.mark.parametrize("step", BEFORE_IT + AFTER_IT)
async def test_a_connection_that_breaks_leaves_a_doubt_only_when_the_message_was_under_way(
    step: str, action: Any
) -> None:
    announced = Announced()
    async with (
        scripted({step: action}) as server,
        open_transport(smtp_settings(server.port, mail_timeout=SHORT)) as transport,
    ):
        with pytest.raises(Retry) as ended:
            await transport.send(a_mail(), announced)
    assert announced.times == (step in AFTER_IT)
    assert ended.value.uncertain == (step in AFTER_IT)
    assert ("may have been sent" in str(ended.value)) == (step in AFTER_IT), (
        "and whoever reads the error is told"
    )


@pytest.mark.parametrize("step", ["RCPT", "DATA", "DOT"])
@pytest.mark.parametrize(
    ("code", "ending"), [("421", Retry), ("451", Retry), ("554", Discard), ("535", DependencyDown)]
)
async def test_a_server_that_refuses_leaves_none(
    step: str, code: str, ending: type[Ending]
) -> None:
    announced = Announced()
    async with (
        scripted({step: f"{code} no"}) as server,
        open_transport(smtp_settings(server.port)) as transport,
    ):
        with pytest.raises(ending) as ended:
            await transport.send(a_mail(), announced)
    assert announced.times == (step == "DOT")
    assert not getattr(ended.value, "uncertain", False)


async def test_a_server_that_leaves_while_the_intent_is_being_written_has_nothing_of_the_mail() -> (
    None
):
    async with post_office() as office:
        left = asyncio.Event()

        async def doorman(step: str, to: str) -> bool:
            if step == "go on":
                left.set()
            return step != "go on"

        async with open_transport(smtp_settings(office.port)) as transport:
            (kept,) = await connections(transport, office)

            async def intend() -> None:
                await left.wait()
                await until(lambda: not kept.is_connected)

            office.doorman = doorman
            with pytest.raises(Retry) as ended:
                await transport.send(a_mail(), intend)
    assert not ended.value.uncertain


async def connections(transport: Any, office: PostOffice) -> list[Any]:
    """Those that the transport keeps, after a first mail."""
    await transport.send(a_mail())
    assert len(office.delivered) == 1
    return [idle.client for idle in transport._idle]


@pytest.mark.parametrize(
    ("status", "uncertain"),
    [
        (408, True),
        (429, False),
        (500, False),
        (502, True),
        (503, False),
        (504, True),
        (None, True),
        (-1, True),
    ],
)
async def test_what_sendgrid_answers_settles_it_unless_somebody_in_between_answers(
    status: int | None, uncertain: bool
) -> None:
    deadlines = SHORT if status is None else PATIENT
    async with (
        sendgrid(status) as server,
        open_transport(sendgrid_settings(server.port, mail_timeout=deadlines)) as transport,
    ):
        with pytest.raises(Retry) as ended:
            await transport.send(a_mail(), Announced())
    assert ended.value.uncertain is uncertain


async def test_sendgrid_that_cannot_be_reached_leaves_no_doubt() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with open_transport(sendgrid_settings(unused.getsockname()[1])) as transport:
            with pytest.raises(Retry) as ended:
                await transport.send(a_mail(), Announced())
    assert not ended.value.uncertain


async def test_tls_that_breaks_under_the_request_is_a_doubt_and_not_a_broken_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unlike TLS that never came about: there may be a whole request on the other side."""
    async with open_transport(sendgrid_settings(1)) as transport:

        async def post(*_: Any, **__: Any) -> Any:
            try:
                raise ssl.SSLError(1, "bad record mac")
            except ssl.SSLError as error:
                raise httpx.ReadError("reading failed") from error

        monkeypatch.setattr(httpx.AsyncClient, "post", post)
        with pytest.raises(Retry) as ended:
            await transport.send(a_mail(), Announced())
    assert ended.value.uncertain


# --- what becomes of it


async def test_hold_sends_it_to_the_dead_letter_queue_and_a_replay_sends_it(
    connection: Connection, settings: ServiceSettings
) -> None:
    await a_job(connection, job_id="j", **DIED, intent_at=timedelta(seconds=-2))
    async with post_office() as office:
        async with at_work(connection, by_smtp(settings, office, doubtful_mail="hold")) as (
            client,
            _,
        ):
            await until(lambda: is_(connection, "dlq"))
            row = await the_job(connection, "j")
            assert row["error"] == UNCERTAIN
            assert UNCERTAIN.startswith("delivery uncertain")
            assert office.delivered == []
            await client.replay("j")
            await until(lambda: is_(connection, "completed"))
        assert len(office.delivered) == 1


async def test_hold_sends_what_is_in_no_doubt(
    connection: Connection, settings: ServiceSettings
) -> None:
    """Its worker died, but before it came to that."""
    await a_job(connection, job_id="j", **DIED)
    async with post_office() as office:
        async with at_work(connection, by_smtp(settings, office, doubtful_mail="hold")):
            await until(lambda: is_(connection, "completed"))
        assert len(office.delivered) == 1


@pytest.mark.parametrize("mode", ["resend", "hold"])
async def test_an_attempt_whose_connection_broke_is_treated_like_one_that_died(
    connection: Connection, settings: ServiceSettings, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server took the mail and said nothing; the second attempt sends it again under the same
    Message-ID, or does not."""
    async with post_office() as office:

        async def doorman(step: str, to: str) -> bool:
            return step != "taken" or len(office.delivered) > 1

        office.doorman = doorman
        with caplog.at_level(logging.INFO):
            async with at_work(connection, by_smtp(settings, office, doubtful_mail=mode)) as (
                client,
                _,
            ):
                await client.enqueue(notify_of_sign_in, PAYLOAD, job_id="j")
                await until(lambda: is_(connection, "failed"))
                assert "may have been sent" in (await the_job(connection, "j"))["error"]
                await sql(connection, "UPDATE job_logs SET run_after = now()")
                await until(lambda: is_(connection, "completed" if mode == "resend" else "dlq"))
    assert {mail.message_id for mail in office.delivered} == {message_id("j", "example.org")}
    assert len(office.delivered) == (2 if mode == "resend" else 1)
    warned = [
        record for record in caplog.records if getattr(record, "event", "") == "mail.doubtful"
    ]
    assert len(warned) == (1 if mode == "resend" else 0)
    assert all(
        record.levelno == logging.WARNING and "may have been sent before" in record.getMessage()
        for record in warned
    )


async def test_a_mail_that_was_refused_for_certain_is_not_held(
    connection: Connection, settings: ServiceSettings
) -> None:
    async with scripted({"DOT": ["451 4.3.0 not now", "250 ok"]}) as server:
        changed = by_smtp(settings, PostOffice(server.port), doubtful_mail="hold")
        async with at_work(connection, changed) as (client, _):
            await client.enqueue(notify_of_sign_in, PAYLOAD, job_id="j")
            await until(lambda: is_(connection, "failed"))
            await sql(connection, "UPDATE job_logs SET run_after = now()")
            await until(lambda: is_(connection, "completed"))


@pytest.mark.parametrize("mode", ["resend", "hold"])
def test_the_environment_says_which(mode: str) -> None:
    assert settings_from({"PGQUEUE_DOUBTFUL_MAIL": mode}, ServiceSettings).doubtful_mail == mode
    assert settings_from({}, ServiceSettings).doubtful_mail == "resend"
    with pytest.raises(SettingsError, match="PGQUEUE_DOUBTFUL_MAIL"):
        settings_from({"PGQUEUE_DOUBTFUL_MAIL": "perhaps"}, ServiceSettings)
