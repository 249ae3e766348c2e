"""What SendGrid answers, and what becomes of the job."""

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications.mail.transports import open_transport
from pgqueue_service.notifications.mail.transports.sendgrid import LONGEST_WAIT, wait_asked

from pgqueue.errors import DependencyDown, Discard, Ending, Retry, SettingsError
from tests.support.mailservers import NOW, SHORT, a_mail, sendgrid, sendgrid_settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def errors(message: str, field: str | None = None) -> str:
    return json.dumps({"errors": [{"message": message, "field": field, "help": None}]})


async def test_an_accepted_mail_gives_a_receipt_and_says_all_that_matters() -> None:
    mail = a_mail()
    async with (
        sendgrid(202, {"X-Message-Id": "abc-123"}) as server,
        open_transport(
            sendgrid_settings(
                server.port, sendgrid_from_email="Yellow Books <no-reply@example.org>"
            )
        ) as transport,
    ):
        assert await transport.send(mail) == "sendgrid 202 abc-123"
    assert server.heads[0].startswith("POST /v3/mail/send HTTP/1.1")
    assert "Authorization: Bearer SG.a-secret-key" in server.heads[0]
    posted = server.requests[0]
    assert posted["personalizations"] == [{"to": [{"email": mail.to}]}]
    assert posted["from"] == {"email": "no-reply@example.org", "name": "Yellow Books"}
    assert posted["subject"] == mail.subject
    assert posted["content"] == [
        {"type": "text/plain", "value": mail.text},
        {"type": "text/html", "value": mail.html},
    ]
    assert posted["headers"]["Message-ID"] == mail.message_id
    assert posted["custom_args"] == {"message_id": mail.message_id}
    assert posted["tracking_settings"]["click_tracking"] == {"enable": False}


async def test_many_mails_share_a_connection() -> None:
    async with sendgrid(202) as server, open_transport(sendgrid_settings(server.port)) as transport:
        for _ in range(5):
            await transport.send(a_mail())
    assert len(server.requests) == 5
    assert server.opened == 1


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (200, DependencyDown),
        (301, DependencyDown),
        (400, Discard),
        (401, DependencyDown),
        (403, DependencyDown),
        (404, Discard),
        (408, Retry),
        (413, Discard),
        (429, Retry),
        (500, Retry),
        (502, Retry),
        (503, Retry),
    ],
)
async def test_an_answer_other_than_202_ends_the_attempt_by_its_code(
    status: int, ending: type[Ending]
) -> None:
    body = '{"errors": [{"message": "user.name@example.com: no", "key": "Bearer SG.a-secret-key"}]}'
    async with (
        sendgrid(status, body=body) as server,
        open_transport(sendgrid_settings(server.port)) as transport,
    ):
        with pytest.raises(ending) as ended:
            await transport.send(a_mail())
    assert type(ended.value) is ending
    assert f"{status} " in str(ended.value)
    assert "user.name@" not in str(ended.value)
    assert "SG.a-secret-key" not in str(ended.value)
    if isinstance(ended.value, DependencyDown):
        assert ended.value.dependency == "mail"


FROM = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until "
    "this error is resolved."
)


@pytest.mark.parametrize(
    ("status", "body", "ending", "answered"),
    [
        (400, errors("Maximum credits exceeded"), DependencyDown, None),
        (401, errors("Maximum credits exceeded"), DependencyDown, None),
        (402, errors("payment required"), DependencyDown, None),
        (403, errors(FROM, "from"), DependencyDown, None),
        (400, errors(FROM, "from"), DependencyDown, None),
        (
            400,
            errors("The from email does not contain a valid address.", "from.email"),
            DependencyDown,
            None,
        ),
        (400, errors("Invalid IP pool", "ip_pool_name"), DependencyDown, None),
        (400, errors("Your account has been suspended"), DependencyDown, None),
        (400, "Maximum credits exceeded", DependencyDown, None),
        (407, "", DependencyDown, None),
        (
            400,
            errors("Does not contain a valid address.", "personalizations.0.to.0.email"),
            Discard,
            True,
        ),
        (400, errors("The subject is required.", "subject"), Discard, True),
        (
            400,
            errors(
                "daily.sending.quota.exceeded@example.com is no valid address", "personalizations"
            ),
            Discard,
            True,
        ),
        (400, "<html>no</html>", Discard, True),
        (400, '{"errors": "none"}', Discard, True),
        (413, errors("payload too large"), Discard, True),
        (404, errors("not found"), Discard, False),
    ],
)
async def test_what_concerns_our_account_is_not_blamed_on_the_mail(
    status: int, body: str, ending: type[Ending], answered: bool | None
) -> None:
    async with (
        sendgrid(status, body=body) as server,
        open_transport(sendgrid_settings(server.port)) as transport,
    ):
        with pytest.raises(ending) as ended:
            await transport.send(a_mail(to="daily.sending.quota.exceeded@example.com"))
    assert type(ended.value) is ending
    assert getattr(ended.value, "answered", None) is answered


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {}, None),
        (429, {"Retry-After": "120"}, 120),
        (503, {"Retry-After": "120"}, 120),
        (429, {"Retry-After": format_datetime(NOW + timedelta(minutes=3), usegmt=True)}, 180),
        (429, {"X-RateLimit-Reset": str(int(NOW.timestamp()) + 240)}, 240),
        (429, {"X-RateLimit-Reset": "45"}, 45),
        (429, {"Retry-After": "5", "X-RateLimit-Reset": "45"}, 5),
        (429, {"Retry-After": "soon", "X-RateLimit-Reset": "45"}, 45),
        (503, {"X-RateLimit-Reset": "45"}, None),
        (429, {"Retry-After": "-5"}, None),
        (429, {"Retry-After": "0"}, None),
        (429, {"Retry-After": "99999999999999999999"}, None),
        (429, {"Retry-After": format_datetime(NOW - timedelta(minutes=3), usegmt=True)}, None),
        (429, {"Retry-After": format_datetime(NOW + timedelta(days=30), usegmt=True)}, None),
        (429, {"X-RateLimit-Reset": str(int(NOW.timestamp()) - 5)}, None),
        (429, {"X-RateLimit-Reset": "1e9"}, None),
    ],
)
async def test_the_wait_that_the_server_asks_for_is_passed_on(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    # The answer's own Date is years away from the clock of this machine: a worker's wrong clock has
    # no effect.
    said = {"Date": format_datetime(NOW, usegmt=True), **headers}
    async with (
        sendgrid(status, said) as server,
        open_transport(sendgrid_settings(server.port)) as transport,
    ):
        with pytest.raises(Retry) as ended:
            await transport.send(a_mail())
    assert ended.value.after == (None if seconds is None else timedelta(seconds=seconds))


def test_without_a_date_our_own_clock_counts() -> None:
    headers = httpx.Headers({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 60)})
    assert wait_asked(429, headers, NOW.timestamp()) == 60
    naive = httpx.Headers(
        {
            "Date": "Mon, 23 Nov 2026 10:05:09 -0000",
            "Retry-After": "Mon, 23 Nov 2026 10:06:09 -0000",
        }
    )
    assert wait_asked(429, naive, 0) == 60


@given(st.text(), st.text(), st.text())
def test_nonsense_in_the_headers_does_no_harm(date: str, retry: str, reset: str) -> None:
    pairs = {"Date": date, "Retry-After": retry, "X-RateLimit-Reset": reset}
    headers = httpx.Headers(
        [(name.encode(), value.encode("utf-8", "replace")) for name, value in pairs.items()]
    )
    asked = wait_asked(429, headers, datetime.now(UTC).timestamp())
    assert asked is None or 0 < asked <= LONGEST_WAIT


async def test_silence_is_a_retry() -> None:
    async with (
        sendgrid(None) as server,
        open_transport(sendgrid_settings(server.port, mail_timeout=SHORT)) as transport,
    ):
        with pytest.raises(Retry, match="timed out"):
            await transport.send(a_mail())
    assert len(server.requests) == 1


async def test_an_answer_that_is_no_http_is_a_retry() -> None:
    async with sendgrid(-1) as server, open_transport(sendgrid_settings(server.port)) as transport:
        with pytest.raises(Retry):
            await transport.send(a_mail())


async def test_nobody_listening_is_a_retry() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with open_transport(sendgrid_settings(unused.getsockname()[1])) as transport:
            with pytest.raises(Retry):
                await transport.send(a_mail())


@pytest.mark.parametrize(
    ("errno", "ending"), [(socket.EAI_AGAIN, Retry), (socket.EAI_NONAME, DependencyDown)]
)
async def test_a_name_that_does_not_exist_is_broken_and_one_that_cannot_be_resolved_now_is_a_retry(
    errno: int, ending: type[Ending], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with open_transport(
        sendgrid_settings(0, sendgrid_url="https://sendgrid.example.org")
    ) as transport:
        with pytest.raises(ending, match="no answer"):
            await transport.send(a_mail())


async def test_a_certificate_that_cannot_be_trusted_breaks_the_transport() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with sendgrid(202, tls=tls) as server:
        settings = sendgrid_settings(0, sendgrid_url=f"https://127.0.0.1:{server.port}")
        async with open_transport(settings) as transport:
            with pytest.raises(DependencyDown, match="certificate"):
                await transport.send(a_mail())
    assert server.requests == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sendgrid_api_key": None}, "SENDGRID_API_KEY"),
        ({"sendgrid_api_key": "SG.a\nb"}, "SENDGRID_API_KEY"),
        ({"sendgrid_api_key": "SG.ключ"}, "SENDGRID_API_KEY"),
        ({"sendgrid_from_email": None}, "SENDGRID_FROM_EMAIL"),
        ({"sendgrid_from_email": "nobody"}, "SENDGRID_FROM_EMAIL"),
        ({"sendgrid_url": "ftp://example.org"}, "PGQUEUE_SENDGRID_URL"),
        ({"sendgrid_url": "api.sendgrid.com"}, "PGQUEUE_SENDGRID_URL"),
        ({"sendgrid_url": "http://api.sendgrid.com"}, "PGQUEUE_SENDGRID_URL"),
    ],
)
async def test_settings_that_cannot_work_are_told_at_the_start_without_the_key(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named) as told:
        async with open_transport(sendgrid_settings(1, **changes)):
            pass
    assert "SG." not in str(told.value)
