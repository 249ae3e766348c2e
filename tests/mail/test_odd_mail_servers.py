"""Mail servers that speak as no other does: old, slow, endless, broken. Every step has an end in
time and bytes."""

import asyncio
import ssl
from typing import Any

import pytest
import trustme
from pgqueue_service.notifications.mail.transports import open_transport

from pgqueue.errors import DependencyDown, Ending, Retry
from tests.support.mailservers import (
    SHORT,
    Action,
    Drop,
    Endless,
    Hang,
    Last,
    Raw,
    a_mail,
    inbox,
    scripted,
    smtp_settings,
)

STEPS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- no EHLO


@pytest.mark.parametrize("reply", ["500 what?", "502 5.5.1 not implemented", "501 no", "504 no"])
async def test_a_server_without_ehlo_is_greeted_with_helo(reply: str) -> None:
    script = {"EHLO": reply, "HELO": "250 old.example.org"}
    async with scripted(script) as server, open_transport(smtp_settings(server.port)) as transport:
        await transport.send(a_mail())
        await transport.send(a_mail())
        assert server.verbs(1) == [
            "EHLO",
            "HELO",
            "MAIL",
            "RCPT",
            "DATA",
            "DOT",
            "MAIL",
            "RCPT",
            "DATA",
            "DOT",
        ]


@pytest.mark.parametrize(
    ("reply", "ending"),
    [("421 closing", Retry), ("550 5.7.1 you may not", DependencyDown), ("554 no", DependencyDown)],
)
async def test_a_server_that_refuses_us_at_ehlo_is_not_asked_again(
    reply: str, ending: type[Ending]
) -> None:
    async with (
        scripted({"EHLO": reply}) as server,
        open_transport(smtp_settings(server.port)) as transport,
    ):
        with pytest.raises(ending):
            await transport.send(a_mail())
        assert server.verbs(1) == ["EHLO"]


async def test_a_server_that_knows_neither_breaks_the_transport() -> None:
    async with (
        scripted({"EHLO": "502 no"}) as server,
        open_transport(smtp_settings(server.port)) as transport,
    ):
        with pytest.raises(DependencyDown, match="502"):
            await transport.send(a_mail())


async def test_a_server_without_ehlo_takes_no_password() -> None:
    script = {"EHLO": "502 no", "HELO": "250 old.example.org"}
    settings = {"smtp_user": "mailer", "smtp_password": "correct horse"}
    async with (
        scripted(script) as server,
        open_transport(smtp_settings(server.port, **settings)) as transport,
    ):
        with pytest.raises(DependencyDown, match="login"):
            await transport.send(a_mail())
        assert "MAIL" not in server.verbs(1)


# --- no STARTTLS

HELLO = "250-scripted.example.org\r\n250 SIZE 1000000"


@pytest.mark.parametrize(
    "script", [{"EHLO": HELLO}, {"EHLO": "502 no", "HELO": "250 hello"}, {"EHLO": "250 STARTTLSX"}]
)
async def test_no_mail_leaves_in_the_clear_where_starttls_is_demanded(
    script: dict[str, str],
) -> None:
    async with (
        scripted(script) as server,
        open_transport(smtp_settings(server.port, smtp_secure="starttls")) as transport,
    ):
        with pytest.raises(DependencyDown, match="SMTP_SECURE"):
            await transport.send(a_mail())
        assert "MAIL" not in server.verbs(1)


async def test_starttls_is_demanded_of_a_host_that_is_not_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name leads to loopback, as a stranger in between would have it."""
    resolve = asyncio.get_running_loop().getaddrinfo

    async def here(host: Any, *args: Any, **more: Any) -> Any:
        return await resolve("127.0.0.1", *args, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
    for secure in (False, "starttls", "opportunistic", "none"):
        async with (
            scripted({"EHLO": HELLO}) as server,
            open_transport(
                smtp_settings(server.port, smtp_host="mail.example.org", smtp_secure=secure)
            ) as transport,
        ):
            if secure in ("opportunistic", "none"):
                await transport.send(a_mail())
                continue
            with pytest.raises(DependencyDown, match="STARTTLS"):
                await transport.send(a_mail())
            assert "MAIL" not in server.verbs(1)


async def test_none_does_not_even_take_starttls_that_is_offered() -> None:
    script = {"EHLO": "250-hello\r\n250 STARTTLS"}
    async with (
        scripted(script) as server,
        open_transport(smtp_settings(server.port, smtp_secure="none")) as transport,
    ):
        await transport.send(a_mail())
        assert "STARTTLS" not in server.verbs(1)


async def test_demanded_starttls_is_used(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    settings = {"smtp_secure": "starttls", "smtp_ca": str(tmp_path / "ca.pem")}
    async with (
        inbox(starttls=tls) as box,
        open_transport(smtp_settings(box.port, **settings)) as transport,
    ):
        await transport.send(a_mail())
    assert box.encrypted == [True]


# --- answers without end, without sense, or without a second half

ODD: dict[str, Action] = {
    "no answer": Hang(),
    "half an answer": Raw(b"25"),
    "a line without its end": Raw(b"250 ok"),
    "the first of two lines": Raw(b"250-one\r\n"),
    "an empty line": Raw(b"\r\n"),
    "a line of 100 KB": Raw(b"250 " + b"x" * 100_000 + b"\r\n"),
    "a line without end": Endless(b"x" * 1000),
    "lines without end": Endless(b"250-more\r\n"),
    "bytes of no letters": Raw(bytes(range(128, 256)) + b"\r\n"),
    "NUL": Raw(b"\0\0\0\0\r\n"),
    "a code of two digits": Raw(b"25 ok\r\n"),
    "a code of four digits": Raw(b"2500 ok\r\n"),
    "HTTP": Raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "a goodbye": Last("221 bye"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("step", STEPS)
async def test_an_odd_answer_ends_the_attempt(step: str, odd: str) -> None:
    async with (
        scripted({step: ODD[odd]}) as server,
        open_transport(smtp_settings(server.port, mail_timeout=SHORT)) as transport,
        asyncio.timeout(10),
    ):
        if (step, odd) in TAKEN:
            await transport.send(a_mail())
            return
        with pytest.raises(Ending) as ended:
            await transport.send(a_mail())
        assert isinstance(ended.value, Retry)
        assert len(str(ended.value)) < 500
        assert ended.value.uncertain == (step == "DOT")


TAKEN = {("DOT", "a goodbye"), ("DOT", "a code of four digits")}
"""Their first digit is a yes."""


@pytest.mark.parametrize("challenge", ["334 !!!!", "334", "334 " + "x" * 600, "235"])
@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_an_odd_answer_to_a_login_ends_the_attempt(method: str, challenge: str) -> None:
    script: dict[str, Action] = {"EHLO": f"250-hello\r\n250 AUTH {method}", "AUTH": challenge}
    settings = {"smtp_user": "mailer", "smtp_password": "correct horse", "mail_timeout": SHORT}
    async with (
        scripted(script) as server,
        open_transport(smtp_settings(server.port, **settings)) as transport,
        asyncio.timeout(10),
    ):
        if (method, challenge) == ("PLAIN", "235"):
            await transport.send(a_mail())
            return
        with pytest.raises(Ending):
            await transport.send(a_mail())


@pytest.mark.parametrize(
    "odd", [Drop(), Hang(), Raw(b"\xff\xff"), "500 no", Endless(b"221-bye\r\n")]
)
async def test_a_server_that_says_no_goodbye_holds_nothing_up(odd: Action) -> None:
    async with (
        scripted({"QUIT": odd}) as server,
        asyncio.timeout(10),
        open_transport(smtp_settings(server.port, mail_timeout=SHORT)) as transport,
    ):
        await transport.send(a_mail())
    assert server.verbs(1)[-1] == "QUIT"


async def test_a_server_that_talks_of_itself_is_not_heard() -> None:
    """A line between two answers is nobody's answer."""
    async with scripted({"RCPT": "250 ok\r\n554 and now for something else"}) as server:
        async with open_transport(smtp_settings(server.port)) as transport:
            with pytest.raises(Ending):
                await transport.send(a_mail())
        assert server.verbs(1).count("DOT") == 0


async def test_any_yes_is_a_yes() -> None:
    """RFC 5321, 4.2.1: of a code that it does not know, a client goes by the first digit."""
    script = {"MAIL": "253 ok", "RCPT": "252 cannot verify", "DOT": "200 fine"}
    async with scripted(script) as server, open_transport(smtp_settings(server.port)) as transport:
        assert (await transport.send(a_mail())).startswith("smtp 200")
