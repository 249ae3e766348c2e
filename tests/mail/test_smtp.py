"""What a mail server does, and what becomes of the job. Every server here is a real one on
loopback."""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pgqueue_service.notifications.mail.transports import (
    Transport,
    open_transport,
    smtp,
    smtp_session,
)
from pgqueue_service.notifications.mail.transports.secrecy import may_send_secret
from pgqueue_service.settings import ServiceSettings

from pgqueue.errors import DependencyDown, Discard, Ending, Retry, SettingsError
from tests.support.mailservers import (
    SHORT,
    Drop,
    Hang,
    Last,
    a_mail,
    inbox,
    scripted,
    smtp_settings,
)

SECRET = "correct horse"


pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def transport_to(port: int, **changes: Any) -> AsyncIterator[Transport]:
    async with open_transport(smtp_settings(port, **changes)) as transport:
        yield transport


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
    return context


# --- a server that works


async def test_a_mail_reaches_the_inbox_and_the_receipt_names_the_transport_and_no_address() -> (
    None
):
    async with inbox() as box, transport_to(box.port) as transport:
        receipt = await transport.send(a_mail())
    assert receipt == "smtp 250 2.0.0 Ok: queued as 4XYZ"
    assert box.recipients == [["user.name@example.com"]]
    assert box.mails[0]["Subject"] == "🔐 Сайн уу"
    assert box.mails[0]["From"].addresses[0].addr_spec == "no-reply@example.org"
    assert box.raw[0].isascii()


async def test_many_mails_share_one_connection() -> None:
    async with inbox() as box, transport_to(box.port) as transport:
        for _ in range(20):
            await transport.send(a_mail())
        assert (len(box.mails), box.opened) == (20, 1)


async def test_mails_at_once_use_no_more_connections_than_allowed() -> None:
    async with inbox() as box, transport_to(box.port, smtp_connections=3) as transport:
        await asyncio.gather(*(transport.send(a_mail()) for _ in range(30)))
        assert len(box.mails) == 30
        assert box.opened == box.most_open == 3


@pytest.mark.parametrize(
    "text", [".\n..\n.hidden\n\n.\n", ".", "no line end", "\n.\nMAIL FROM:<x@example.com>\n"]
)
async def test_lines_that_begin_with_a_dot_arrive_and_end_nothing(text: str) -> None:
    async with inbox() as box, transport_to(box.port) as transport:
        await transport.send(a_mail(text=text, html=None))
        await transport.send(a_mail(text=text))
    assert box.opened == 1
    assert box.mails[0].get_content().replace("\r\n", "\n").removesuffix("\n") == text.removesuffix(
        "\n"
    )
    assert len(box.mails) == 2


async def test_the_server_gets_a_full_host_name_and_of_the_sender_the_address_only() -> None:
    async with scripted() as server, transport_to(server.port) as transport:
        await transport.send(a_mail())
    assert re.fullmatch(r"EHLO ([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|\[127\.0\.0\.1\])", server.lines[0])
    assert server.lines[1:4] == [
        "MAIL FROM:<no-reply@example.org>",
        "RCPT TO:<user.name@example.com>",
        "DATA",
    ]


async def test_closing_says_goodbye_on_every_idle_connection() -> None:
    async with scripted() as server:
        async with transport_to(server.port) as transport:
            await transport.send(a_mail())
        assert server.verbs(1)[-1] == "QUIT"


# --- refusals, step by step

BROKEN, RETRIED, DEAD = DependencyDown, Retry, Discard


@pytest.mark.parametrize(
    ("step", "reply", "ending"),
    [
        ("greeting", "421 4.3.2 not now", RETRIED),
        ("greeting", "450 4.3.2 not now", RETRIED),
        ("greeting", "554 5.3.2 go away", BROKEN),
        ("EHLO", "421 4.3.2 not now", RETRIED),
        ("EHLO", "451 4.3.2 not now", RETRIED),
        ("EHLO", "550 5.7.1 your name is bad", BROKEN),
        ("MAIL", "421 4.3.2 not now", RETRIED),
        ("MAIL", "452 4.3.1 disk full", RETRIED),
        ("MAIL", "530 5.7.0 log in first", BROKEN),
        ("MAIL", "550 5.7.1 that sender may not", BROKEN),
        ("RCPT", "421 4.3.2 not now", RETRIED),
        ("RCPT", "450 4.2.0 greylisted", RETRIED),
        ("RCPT", "452 4.2.2 mailbox full", RETRIED),
        ("RCPT", "535 5.7.8 log in first", BROKEN),
        ("RCPT", "550 5.1.1 no such user", DEAD),
        ("RCPT", "553 5.1.3 bad address", DEAD),
        ("DATA", "421 4.3.2 not now", RETRIED),
        ("DATA", "451 4.3.0 try later", RETRIED),
        ("DATA", "554 5.5.1 no", DEAD),
        ("DOT", "421 4.3.2 not now", RETRIED),
        ("DOT", "451 4.7.1 try later", RETRIED),
        ("DOT", "552 5.3.4 too big", DEAD),
        ("DOT", "554 5.7.1 spam", DEAD),
        ("RCPT", "999 nonsense", RETRIED),
        ("RCPT", "what is this", RETRIED),
    ],
)
async def test_a_refusal_ends_the_attempt_by_where_and_how_it_came(
    step: str, reply: str, ending: type[Ending]
) -> None:
    async with scripted({step: reply}) as server, transport_to(server.port) as transport:
        with pytest.raises(ending) as ended:
            await transport.send(a_mail())
    assert reply[-5:] in str(ended.value)
    assert type(ended.value) is ending
    assert ended.value.__cause__ is None


@pytest.mark.parametrize("step", ["RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("code", ["450", "550"])
async def test_a_refused_mail_leaves_a_connection_that_takes_the_next(step: str, code: str) -> None:
    good = {"RCPT": "250 ok", "DATA": "354 go on", "DOT": "250 ok"}[step]
    async with (
        scripted({step: [f"{code} no", good]}) as server,
        transport_to(server.port) as transport,
    ):
        with pytest.raises((Retry, Discard)):
            await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.opened == 1
        assert server.verbs(1).count("RSET") == 1
        assert server.verbs(1)[-1] == "DOT"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_after_421_the_connection_is_dropped(step: str) -> None:
    async with (
        scripted({step: "421 4.3.2 closing"}, {}) as server,
        transport_to(server.port) as transport,
    ):
        with pytest.raises(Retry):
            await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.opened == 2
        assert "RSET" not in server.verbs(1)


async def test_a_connection_that_refuses_the_reset_is_dropped() -> None:
    async with (
        scripted({"RCPT": "550 no", "RSET": "500 what"}, {}) as server,
        transport_to(server.port) as transport,
    ):
        with pytest.raises(Discard):
            await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.opened == 2


async def test_a_servers_words_are_masked_and_cut_to_one_line() -> None:
    reply = (
        "550-<User.Name@Example.com>: unknown\r\n550 ask other.person@example.net, "
        "password=hunter2 "
    ) + "x" * 2000
    async with scripted({"RCPT": reply}) as server, transport_to(server.port) as transport:
        with pytest.raises(Discard) as ended:
            await transport.send(a_mail())
    said = str(ended.value)
    assert "u***@example.com" in said
    assert "o***@example.net" in said
    assert "hunter2" not in said
    assert "\n" not in said
    assert len(said) < 500


@pytest.mark.parametrize("to", ["john=@example.com", "o'@example.com", "a/b/c@example.com"])
async def test_even_an_address_that_looks_like_none_is_masked(to: str) -> None:
    async with (
        scripted({"RCPT": f"550 {to} is unknown"}) as server,
        transport_to(server.port) as transport,
    ):
        with pytest.raises(Discard) as ended:
            await transport.send(a_mail(to=to))
    assert to not in str(ended.value)


# --- connections that break, and silence


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_dropped_connection_is_a_retry_and_the_mail_is_not_sent_twice_in_one_attempt(
    step: str,
) -> None:
    async with scripted({step: Drop()}) as server, transport_to(server.port) as transport:
        with pytest.raises(Retry):
            await transport.send(a_mail())
        assert server.opened == 1


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_silence_is_a_retry_after_the_timeout_of_a_step(step: str) -> None:
    async with (
        scripted({step: Hang()}) as server,
        transport_to(server.port, mail_timeout=SHORT) as transport,
    ):
        with pytest.raises(Retry, match="timed out"):
            await transport.send(a_mail())
        assert server.opened == 1


def test_no_step_takes_longer_than_a_third_of_the_lease() -> None:
    assert smtp_session.Dialler(smtp_settings(25, lease=timedelta(seconds=3))).timeout == 1
    assert smtp_session.Dialler(smtp_settings(25, lease=timedelta(hours=1))).timeout == 10


async def test_nobody_listening_is_a_retry() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with transport_to(unused.getsockname()[1]) as transport:
            with pytest.raises(Retry):
                await transport.send(a_mail())


@pytest.mark.parametrize(
    ("errno", "ending"),
    [
        (socket.EAI_AGAIN, Retry),
        (socket.EAI_FAIL, Retry),
        (socket.EAI_NONAME, DependencyDown),
        (socket.EAI_NODATA, DependencyDown),
    ],
)
async def test_a_name_that_cannot_be_resolved_now_is_a_retry_and_one_that_does_not_exist_is_broken(
    errno: int, ending: type[Ending], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with transport_to(587, smtp_host="mail.example.org") as transport:
        with pytest.raises(ending, match="no answer"):
            await transport.send(a_mail())


# --- kept connections that die


async def test_a_connection_that_the_server_closed_while_idle_costs_no_attempt() -> None:
    async with (
        scripted({"DOT": Last("250 ok")}, {}) as server,
        transport_to(server.port) as transport,
    ):
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.opened == 2
        assert server.verbs(2)[-1] == "DOT"


@pytest.mark.parametrize(
    "goodbye", [Drop(), Last("421 4.4.2 idle too long"), "421 4.4.2 idle too long"]
)
async def test_a_kept_connection_that_ends_at_the_first_word_of_the_next_mail_costs_no_attempt(
    goodbye: Any,
) -> None:
    async with (
        scripted({"MAIL": ["250 ok", goodbye]}, {}) as server,
        transport_to(server.port) as transport,
    ):
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.opened == 2
        assert server.verbs(1).count("DOT") == server.verbs(2).count("DOT") == 1


async def test_a_fresh_connection_gets_no_second_chance() -> None:
    async with (
        scripted({"MAIL": ["250 ok", Drop()]}, {"MAIL": Drop()}) as server,
        transport_to(server.port) as transport,
    ):
        await transport.send(a_mail())
        with pytest.raises(Retry):
            await transport.send(a_mail())
        assert server.opened == 2


@pytest.mark.parametrize("step", ["RCPT", "DATA", "DOT"])
async def test_once_the_server_took_a_word_of_the_mail_it_is_not_sent_again_in_this_attempt(
    step: str,
) -> None:
    good = {"RCPT": "250 ok", "DATA": "354 go on", "DOT": "250 ok"}[step]
    async with (
        scripted({step: [good, Drop()]}, {}) as server,
        transport_to(server.port) as transport,
    ):
        await transport.send(a_mail())
        with pytest.raises(Retry):
            await transport.send(a_mail())
        assert server.opened == 1


async def test_a_connection_that_was_idle_for_long_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smtp, "STALE_AFTER", 0.0)
    async with inbox() as box, transport_to(box.port) as transport:
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert (len(box.mails), box.opened) == (2, 2)


async def test_a_cancelled_mail_leaves_no_half_used_connection_behind() -> None:
    hang = Hang()
    async with (
        scripted({"RCPT": ["250 ok", hang]}, {}) as server,
        transport_to(server.port) as transport,
    ):
        await transport.send(a_mail())
        sending = asyncio.ensure_future(transport.send(a_mail()))
        await hang.reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await transport.send(a_mail())
        assert server.opened == 2
        assert "QUIT" not in server.verbs(1)


# --- TLS


async def test_starttls_is_used_where_it_is_offered(authority: trustme.CA, ca_file: str) -> None:
    async with (
        inbox(starttls=server_tls(authority)) as box,
        transport_to(box.port, smtp_ca=ca_file) as transport,
    ):
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert box.encrypted == [True, True]
        assert box.opened == 1


async def test_tls_from_the_first_byte(authority: trustme.CA, ca_file: str) -> None:
    async with (
        inbox(tls=server_tls(authority)) as box,
        transport_to(
            box.port, smtp_secure=True, smtp_ca=ca_file, smtp_host="localhost"
        ) as transport,
    ):
        await transport.send(a_mail())
        assert len(box.mails) == 1


@pytest.mark.parametrize("way", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_is_not_the_servers_breaks_the_transport(
    way: str, wrong: str, authority: trustme.CA, ca_file: str
) -> None:
    context = (
        server_tls(trustme.CA())
        if wrong == "authority"
        else server_tls(authority, "other.example.org")
    )
    served: dict[str, Any] = {way: context}
    async with (
        inbox(**served) as box,
        transport_to(box.port, smtp_ca=ca_file, smtp_secure=way == "tls") as transport,
    ):
        with pytest.raises(DependencyDown, match="certificate") as ended:
            await transport.send(a_mail())
        assert ended.value.dependency == "mail"
        assert box.mails == []


async def test_a_server_that_speaks_no_tls_where_tls_is_wanted_breaks_the_transport() -> None:
    async with inbox() as box, transport_to(box.port, smtp_secure=True) as transport:
        with pytest.raises(DependencyDown, match="TLS"):
            await transport.send(a_mail())


@pytest.mark.parametrize(
    ("reply", "ending"),
    [("454 4.7.0 not now", Retry), ("501 5.5.4 no", DependencyDown), (Drop(), Retry)],
)
async def test_a_refused_starttls_is_never_answered_with_plain_text(
    reply: Any, ending: type[Ending]
) -> None:
    script = {"EHLO": "250-hello\r\n250 STARTTLS", "STARTTLS": reply}
    async with scripted(script) as server, transport_to(server.port) as transport:
        with pytest.raises(ending):
            await transport.send(a_mail())
        assert "MAIL" not in server.verbs(1)


async def test_a_connection_lost_in_the_handshake_is_a_retry() -> None:
    script: dict[str, Any] = {"EHLO": "250-hello\r\n250 STARTTLS", "STARTTLS": Last("220 go ahead")}
    async with scripted(script) as server, transport_to(server.port) as transport:
        with pytest.raises(Retry):
            await transport.send(a_mail())


# --- login


async def test_login_over_starttls(authority: trustme.CA, ca_file: str) -> None:
    tls = server_tls(authority)
    async with (
        inbox(starttls=tls, login=("mailer", SECRET)) as box,
        transport_to(
            box.port, smtp_ca=ca_file, smtp_user="mailer", smtp_password=SECRET
        ) as transport,
    ):
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert box.logins == [("mailer", SECRET)]
        assert len(box.mails) == 2


async def test_a_wrong_password_breaks_the_transport_is_tried_once_and_shown_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        inbox(login=("mailer", SECRET)) as box,
        transport_to(box.port, smtp_user="mailer", smtp_password="wrong-one") as transport,
    ):
        with pytest.raises(DependencyDown, match="535") as ended:
            await transport.send(a_mail())
        assert ended.value.dependency == "mail"
        assert len(box.logins) == 1
    assert "wrong-one" not in str(ended.value)
    assert "wrong-one" not in caplog.text


@pytest.mark.parametrize(
    ("reply", "ending"),
    [
        ("421 4.3.2 not now", Retry),
        ("454 4.7.0 temporary authentication failure", Retry),
        ("534 5.7.9 too weak", DependencyDown),
        ("535 5.7.8 wrong", DependencyDown),
        ("504 5.5.4 unknown mechanism", DependencyDown),
        (Drop(), Retry),
    ],
)
async def test_a_login_that_fails_ends_the_attempt_by_its_code(
    reply: Any, ending: type[Ending]
) -> None:
    script = {"EHLO": "250-hello\r\n250 AUTH PLAIN LOGIN", "AUTH": reply}
    async with (
        scripted(script) as server,
        transport_to(server.port, smtp_user="mailer", smtp_password=SECRET) as transport,
    ):
        with pytest.raises(ending):
            await transport.send(a_mail())
        assert "MAIL" not in server.verbs(1)


async def test_a_method_that_the_server_does_not_really_know_is_followed_by_the_next() -> None:
    script: dict[str, Any] = {
        "EHLO": "250-hello\r\n250 AUTH PLAIN CRAM-MD5",
        "AUTH": ["504 5.5.4 unknown", "535 5.7.8 wrong"],
    }
    login = {"smtp_user": "mailer", "smtp_password": SECRET}
    async with scripted(script) as server, transport_to(server.port, **login) as transport:
        with pytest.raises(DependencyDown, match="535"):
            await transport.send(a_mail())
        assert [line.split()[1] for line in server.lines if line.startswith("AUTH")] == [
            "PLAIN",
            "CRAM-MD5",
        ]


async def test_a_server_without_login_breaks_the_transport_when_there_is_a_user() -> None:
    async with (
        scripted() as server,
        transport_to(server.port, smtp_user="mailer", smtp_password=SECRET) as transport,
    ):
        with pytest.raises(DependencyDown, match="SMTP_USER"):
            await transport.send(a_mail())


@pytest.mark.parametrize(
    ("host", "encrypted", "may"),
    [
        ("mail.example.org", True, True),
        ("mail.example.org", False, False),
        ("192.0.2.7", False, False),
        ("10.0.0.1", False, False),
        ("localhost.example.org", False, False),
        ("127.0.0.1.example.org", False, False),
        ("localhost", False, True),
        ("LOCALHOST.", False, True),
        ("mail.localhost", False, True),
        ("127.0.0.1", False, True),
        ("127.8.9.1", False, True),
        ("::1", False, True),
        ("[::1]", False, True),
        ("0.0.0.0", False, False),
        ("", False, False),
    ],
)
def test_a_secret_leaves_without_tls_only_to_this_machine(
    host: str, encrypted: bool, may: bool
) -> None:
    assert may_send_secret(host, encrypted=encrypted) is may


async def test_the_password_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_session, "may_send_secret", lambda _host, *, encrypted: encrypted)
    script = {"EHLO": "250-hello\r\n250 AUTH PLAIN LOGIN"}
    async with (
        scripted(script) as server,
        transport_to(server.port, smtp_user="mailer", smtp_password=SECRET) as transport,
    ):
        with pytest.raises(DependencyDown, match="without TLS"):
            await transport.send(a_mail())
        assert server.verbs(1) == ["EHLO"]


# --- settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"smtp_host": None}, "SMTP_HOST"),
        ({"smtp_host": "a..b"}, "SMTP_HOST"),
        ({"smtp_host": "a\r\nb"}, "SMTP_HOST"),
        ({"mail_from": None}, "MAIL_FROM"),
        ({"mail_from": "nobody"}, "MAIL_FROM"),
        ({"smtp_user": "mailer"}, "SMTP_PASSWORD"),
        ({"smtp_ca": "no-such-file.pem"}, "PGQUEUE_SMTP_CA"),
        ({"mail_transport": None}, "MAIL_TRANSPORT"),
    ],
)
async def test_settings_that_cannot_work_are_told_at_the_start(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        async with transport_to(25, **changes):
            pass


async def test_a_ca_file_that_holds_no_certificate_is_told_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    with pytest.raises(SettingsError, match="PGQUEUE_SMTP_CA"):
        async with transport_to(25, smtp_ca=str(path)):
            pass


async def test_without_any_setting_mail_goes_to_the_log() -> None:
    async with open_transport(ServiceSettings()) as transport:
        assert transport.name == "log"
