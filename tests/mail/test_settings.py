"""ServiceSettings of the mail that cannot work: refused when the worker starts, all at once, with
what to write instead."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications import lifespan
from pgqueue_service.notifications.mail.message import LONGEST_SENDER_NAME, Sender, build
from pgqueue_service.notifications.mail.transports import smtp_settings as checked
from pgqueue_service.notifications.mail.transports.smtp_settings import Encryption, host_name
from pgqueue_service.settings import ServiceSettings

from pgqueue.errors import SettingsError
from pgqueue.settings import settings_from
from tests.support.mailservers import NOW, a_mail, parsed, smtp_settings

STARTTLS, TLS, OFFERED, NEVER = (
    Encryption.STARTTLS,
    Encryption.FROM_THE_START,
    Encryption.WHERE_OFFERED,
    Encryption.NEVER,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("host", "environment", "encryption"),
    [
        ("mail.example.org", {}, STARTTLS),
        ("127.0.0.1", {}, OFFERED),
        ("localhost", {}, OFFERED),
        ("[::1]", {}, OFFERED),
        ("mailpit", {}, STARTTLS),
        ("10.0.0.1", {}, STARTTLS),
        ("mail.example.org", {"SMTP_SECURE": "false"}, STARTTLS),
        ("mail.example.org", {"SMTP_SECURE": "off"}, STARTTLS),
        ("mail.example.org", {"SMTP_SECURE": "true"}, TLS),
        ("mail.example.org", {"SMTP_SECURE": "TLS"}, TLS),
        ("mail.example.org", {"SMTP_SECURE": "ssl"}, TLS),
        ("mail.example.org", {"SMTP_SECURE": " StartTLS "}, STARTTLS),
        ("127.0.0.1", {"SMTP_SECURE": "starttls"}, STARTTLS),
        ("127.0.0.1", {"SMTP_SECURE": "true"}, TLS),
        ("mail.example.org", {"SMTP_SECURE": "opportunistic"}, OFFERED),
        ("mail.example.org", {"SMTP_SECURE": "none"}, NEVER),
        ("mail.example.org", {"SMTP_PORT": "465"}, TLS),
        ("127.0.0.1", {"SMTP_PORT": "465"}, TLS),
        ("mail.example.org", {"SMTP_PORT": "465", "SMTP_SECURE": "false"}, TLS),
        ("mail.example.org", {"SMTP_PORT": "25"}, STARTTLS),
    ],
)
def test_mail_is_encrypted_unless_the_settings_say_otherwise(
    host: str, environment: dict[str, str], encryption: Encryption
) -> None:
    settings = settings_from({"SMTP_HOST": host, **environment}, ServiceSettings)
    assert checked.server(settings).encryption is encryption


@pytest.mark.parametrize("word", ["maybe", "ssl3", "required", "2"])
def test_another_word_for_encryption_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="SMTP_SECURE: one of starttls"):
        settings_from({"SMTP_SECURE": word}, ServiceSettings)


@pytest.mark.parametrize("word", ["starttls", "opportunistic", "none"])
def test_port_465_speaks_tls_from_the_first_byte(word: str) -> None:
    with pytest.raises(SettingsError, match="SMTP_PORT=465"):
        checked.server(
            settings_from(
                {"SMTP_HOST": "mail.example.org", "SMTP_PORT": "465", "SMTP_SECURE": word},
                ServiceSettings,
            )
        )


def test_a_password_goes_nowhere_without_encryption() -> None:
    settings = smtp_settings(
        587, smtp_host="mail.example.org", smtp_secure="none", smtp_user="u", smtp_password="p"
    )
    with pytest.raises(SettingsError, match="SMTP_SECURE=none"):
        checked.server(settings)
    assert checked.server(settings.with_(smtp_host="127.0.0.1")).encryption is NEVER


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("mail.example.org", "mail.example.org"),
        (" mail.example.org \n", "mail.example.org"),
        ("mail.example.org.", "mail.example.org"),
        ("MAIL", "MAIL"),
        ("my_mail-1", "my_mail-1"),
        ("почта.example", "почта.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::1", "::1"),
    ],
)
def test_a_host_is_a_name_or_an_address(text: str, host: str) -> None:
    assert host_name(text) == host


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("mail.example.org:2525", "SMTP_HOST=mail.example.org and SMTP_PORT=2525"),
        ("192.0.2.7:25", "SMTP_PORT=25"),
        ("[::1]:25", "SMTP_PORT=25"),
        ("smtp://mail.example.org", "not a URL"),
        ("smtps://mailer:hunter2@mail.example.org:465/", "not a URL"),
        ("tcp://10.0.0.1:25", "not a URL"),
        ("mailer:hunter2@mail.example.org", "SMTP_USER"),
        ("mail.example.org/", "not a host name"),
        ("mail example org", "not a host name"),
        ("a..b", "not a host name"),
        ("", "not a host name"),
        (".", "not a host name"),
        ("-a.example", "not a host name"),
        ("a\r\nb", "not a host name"),
        ("a\0b", "not a host name"),
        ("587", "not a host name"),
        ("192.0.2.300", "not a host name"),
        ("x" * 64 + ".example", "not a host name"),
        (".".join(["x" * 60] * 5), "not a host name"),
        ("[mail.example.org]", "not a host name"),
        ("<mail.example.org>", "not a host name"),
        ("mail.example.org,mail2.example.org", "not a host name"),
    ],
)
def test_what_is_no_host_is_refused_with_the_reason_and_without_a_password(
    text: str, hint: str
) -> None:
    with pytest.raises(ValueError, match=hint) as told:
        host_name(text)
    assert "hunter2" not in str(told.value)


@given(st.text())
def test_any_text_is_a_host_or_refused(text: str) -> None:
    try:
        host = host_name(text)
    except ValueError:
        return
    assert host
    assert not set(host) & set(" \t\r\n\0/@<>,")


# --- the sender


def from_header(text: str) -> Any:
    message = build(a_mail(), Sender.parse(text), NOW)
    assert all(len(line) <= 998 for line in message.split(b"\r\n"))
    (address,) = parsed(message)["From"].addresses
    return address.display_name, address.addr_spec


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Acme: Support <a@b.example>", "Acme: Support"),
        ("Acme; Support <a@b.example>", "Acme; Support"),
        ("Smith, John <a@b.example>", "Smith, John"),
        ('"Acme: Support" <a@b.example>', "Acme: Support"),
        (r'"Acme \"The\" Best" <a@b.example>', 'Acme "The" Best'),
        ("Acme (Support) <a@b.example>", "Acme (Support)"),
        ("Acme [Support] <a@b.example>", "Acme [Support]"),
        ("O'Brien <a@b.example>", "O'Brien"),
        ("Acme. Inc. <a@b.example>", "Acme. Inc."),
        ("back\\slash <a@b.example>", "back\\slash"),
        ("  Acme   <a@b.example>  ", "Acme"),
        ("<a@b.example>", ""),
        ("a@b.example", ""),
        ("Шар ном: дэмжлэг <a@b.example>", "Шар ном: дэмжлэг"),
    ],
)
def test_a_senders_name_arrives_as_it_was_written(text: str, name: str) -> None:
    assert from_header(text) == (name, "a@b.example")


@pytest.mark.parametrize("letter", ["x", "ж", "x y ", ": "])
def test_a_long_name_is_folded(letter: str) -> None:
    name = (letter * LONGEST_SENDER_NAME)[:LONGEST_SENDER_NAME].strip()
    message = build(a_mail(), Sender.parse(f"{name} <a@b.example>"), NOW)
    assert all(len(line) <= 78 for line in message.partition(b"To:")[0].split(b"\r\n"))
    # Read by the older parser: the newer puts blanks between two encoded words.
    field = message_from_bytes(message)["From"]
    assert str(make_header(decode_header(field))) == f"{name} <a@b.example>"


@pytest.mark.parametrize("name", ["x" * 1500, "x y " * 400, "ж" * 1500])
def test_a_name_that_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Sender.parse(f"{name} <a@b.example>")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<>",
        "Acme",
        "Acme <>",
        "Acme <a>",
        "Acme <@b.example>",
        "a@b.example, c@d.example",
        "a@b.example; c@d.example",
        "Acme <a@b.example>, Other <c@d.example>",
        "a@b.example, Other <c@d.example>",
        "Acme <a@b.example",
        "Acme a@b.example>",
        "Acme <<a@b.example>>",
        "Team: a@b.example;",
        "mailto:a@b.example",
        "Acme <a@b.example>\r\nBcc: c@d.example",
        "Acme\nBcc: c@d.example <a@b.example>",
        "Acme\0 <a@b.example>",
        "x" * 65 + "@b.example",
        "x" * 60 + "@" + ".".join(["y" * 60] * 4),
    ],
)
def test_what_is_not_one_sender_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"sender|address|domain"):
        Sender.parse(text)


@given(st.text(max_size=250))
def test_any_name_adds_no_header_field(name: str) -> None:
    try:
        sender = Sender.parse(f"{name} <a@b.example>")
    except ValueError:
        return
    message = build(a_mail(), sender, NOW)
    assert all(len(line) <= 998 for line in message.split(b"\r\n"))
    assert [field.lower() for field in parsed(message)][:3] == ["from", "to", "subject"]
    assert (
        SMTP.header_factory("From", parsed(message)["From"]).addresses[0].addr_spec == "a@b.example"
    )


# --- all at once, when the worker starts


async def test_every_problem_is_told_at_once_and_no_secret() -> None:
    settings = ServiceSettings(
        mail_transport="smtp",
        smtp_host="smtp://mailer:hunter2@mail.example.org",
        smtp_port=465,
        smtp_secure="starttls",
        smtp_user="mailer",
        smtp_ca="no-such-file.pem",
        mail_from="nobody",
        mail_timezone="Nowhere",
    )
    with pytest.raises(SettingsError) as told:
        async with lifespan(settings):
            pass
    said = told.value.problems
    for named in (
        "SMTP_HOST:",
        "SMTP_PORT=465",
        "SMTP_USER and SMTP_PASSWORD",
        "PGQUEUE_SMTP_CA",
        "MAIL_FROM:",
        "MAIL_TIMEZONE",
    ):
        assert [problem for problem in said if problem.startswith(named)], named
    assert len(said) == 6
    assert "hunter2" not in str(told.value)
