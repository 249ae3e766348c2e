"""The tasks of the service: what they take, what they send, and what they say about it."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications import (
    CustomEmail,
    SignIn,
    custom_email,
    lifespan,
    notify_of_sign_in,
    send_custom_email,
    signin,
)
from pgqueue_service.notifications.mail.message import InvalidAddress
from pgqueue_service.notifications.mail.transports.log import HEADING, RULER
from pgqueue_service.settings import ServiceSettings
from pgqueue_service.times import moment, written

from pgqueue.attempt import Claim, Job
from pgqueue.discovery import load_tasks
from pgqueue.errors import Discard, SettingsError
from pgqueue.task import Limit
from tests.support.mailservers import NOW, inbox, scripted, smtp_settings

SENT = {"userId": "user-123", "email": "user.name@example.com", "name": "Бат"}
MISSING = "Missing required fields: userId, email, name"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def job_of(payload: Any, resources: Any = None, **changes: Any) -> Job[Any]:
    values: dict[str, Any] = {
        "job_id": "job-1",
        "job_type": "t",
        "user_id": "user-123",
        "attempt": 1,
        "max_attempts": 5,
    }
    values |= {"id": "0" * 32, "lease": 1, "payload": b"{}", "created_at": NOW, "queue": "default"}
    return Job(payload, Claim(**(values | changes)), resources)


def sign_in(**changes: Any) -> SignIn:
    return notify_of_sign_in.decode(json.dumps(SENT | changes).encode())


# --- declarations


def test_a_worker_finds_both_tasks_in_the_module() -> None:
    tasks, _ = load_tasks(["pgqueue_service.notifications"])
    assert set(tasks) == {"user.signin.notification", "email.custom"}


def test_the_sign_in_task_is_limited_per_user_as_the_settings_say() -> None:
    declared = notify_of_sign_in.declaration(ServiceSettings())
    assert declared.limit == Limit(10, per=timedelta(hours=1))
    assert declared.user_from == "userId"
    assert (declared.max_attempts, declared.timeout, declared.depends_on, declared.admin) == (
        5,
        timedelta(seconds=60),
        "mail",
        False,
    )
    assert notify_of_sign_in.declaration(
        ServiceSettings(signin_limit=(3, timedelta(minutes=1)))
    ).limit == Limit(3, per=timedelta(minutes=1))


def test_a_custom_mail_is_for_administrators_and_counted_against_nobody() -> None:
    declared = send_custom_email.declaration(ServiceSettings())
    assert (declared.admin, declared.limit, declared.user_from, declared.depends_on) == (
        True,
        None,
        None,
        "mail",
    )


# --- the payload of a sign-in


@pytest.mark.parametrize(
    "empty", [{}, dict.fromkeys(signin.MEMBERS[3:]), dict.fromkeys(signin.MEMBERS[3:], "")]
)
def test_optional_members_that_are_missing_null_or_empty_take_their_defaults(
    empty: dict[str, Any],
) -> None:
    event = sign_in(**empty)
    assert (event.provider, event.ip_address, event.user_agent) == ("unknown", "0.0.0.0", "Unknown")
    assert (event.timestamp, event.locale) == (None, None)
    assert event.happened_at(NOW) == NOW


def test_what_is_only_shown_is_cleaned_and_cut() -> None:
    event = sign_in(
        name="Б\x00а\r\nт" * 100,
        userAgent="M\x1b[31m" * 200,
        provider="go\u202eogle",
        unknown="ignored",
    )
    assert event.name == "Бат" * 66 + "Ба"
    assert len(event.user_agent or "") == 512
    assert event.provider == "google"


@pytest.mark.parametrize("member", ["userId", "email", "name"])
@pytest.mark.parametrize("value", [None, "", 0, False, [], {}])
def test_a_required_member_that_is_missing_null_or_empty_is_named_with_the_others(
    member: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{MISSING}"):
        signin.fill(SENT | {member: value}, now=NOW)
    without = {name: text for name, text in SENT.items() if name != member}
    with pytest.raises(ValueError, match=f"^{MISSING}"):
        signin.fill(without, now=NOW)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"email": "user@example"}, "Invalid email address"),
        ({"email": "a@example.com, b@example.com"}, "Invalid email address"),
        ({"userId": "u" * 191}, "userId must have 1 to 190 characters"),
        ({"userId": "u\x00"}, "userId must not contain control characters"),
        ({"userId": "u\n1"}, "userId must not contain control characters"),
        ({"userId": 7}, "userId must be a text"),
        ({"provider": {"a": 1}}, "provider must be a text"),
        ({"name": "\x00\x01"}, MISSING),
        ({"name": "   "}, MISSING),
        ({"timestamp": "yesterday"}, "timestamp must be a date and time"),
        ({"timestamp": "2026-11-23"}, "timestamp must be a date and time"),
    ],
)
def test_a_wrong_member_is_told_in_a_sentence_with_no_value_in_it(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}") as refused:
        signin.fill(SENT | changes, now=NOW)
    assert "example.com" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [{"email": "a@b"}, {"userId": ""}, {"name": "\x00"}, {"email": None}, {"timestamp": "x"}],
)
def test_a_payload_that_came_past_the_api_is_checked_before_the_handler_is_called(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(msgspec.ValidationError):
        sign_in(**changes)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-23T10:05:09Z", NOW),
        ("2026-11-23t10:05:09z", NOW),
        ("2026-11-23 18:05:09+08:00", NOW),
        ("2026-11-23T10:05:09.123Z", NOW + timedelta(milliseconds=123)),
        ("2026-11-23T10:05:09.1234567891Z", NOW + timedelta(microseconds=123456)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_rfc_3339(text: str, meant: datetime) -> None:
    assert sign_in(timestamp=text).happened_at(datetime.now(UTC)) == meant


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:05:09",
        "20261123T100509Z",
        "2026-W48-1T10:05:09Z",
        "2026-11-23T10:05Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T10:05:09Z ",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "٢٠٢٦-11-23T10:05:09Z",
        "1764000000",
    ],
)
def test_what_is_not_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        moment(text)


@given(st.text(max_size=40))
def test_no_text_is_a_timestamp_that_breaks_the_mail(text: str) -> None:
    try:
        when = moment(text)
    except ValueError:
        return
    assert when.tzinfo is UTC


# --- what the server fills in


def test_the_server_fills_in_what_was_not_sent_and_nothing_else() -> None:
    assert signin.fill(SENT, now=NOW) == {
        "provider": "unknown",
        "ipAddress": "0.0.0.0",
        "userAgent": "Unknown",
        "timestamp": "2026-11-23T10:05:09.000Z",
        "locale": "mn",
    }
    full = SENT | {
        "provider": "google",
        "ipAddress": "::1",
        "userAgent": "curl",
        "timestamp": "2026-11-23T10:05:09Z",
        "locale": "en",
    }
    assert signin.fill(full, now=NOW) == {}
    assert signin.fill(full | {"locale": None, "provider": ""}, now=NOW, locale="en") == {
        "locale": "en",
        "provider": "unknown",
    }


def test_the_server_overrides_what_it_cut_or_cleaned() -> None:
    filled = signin.fill(
        SENT | {"name": "a\x00" * 300, "email": "user@жишээ.мон", "userAgent": "u" * 600}, now=NOW
    )
    assert filled["name"] == "a" * 200
    assert filled["email"] == "user@xn--f1ae2cuaa.xn--l1acc"
    assert filled["userAgent"] == "u" * 512


def test_filling_changes_nothing_that_it_was_given() -> None:
    sent = dict(SENT)
    signin.fill(sent, now=NOW)
    assert sent == SENT


optional = st.none() | st.text(max_size=30)


@given(
    st.fixed_dictionaries(
        {name: st.text(min_size=1, max_size=250) for name in ("userId", "name")},
        optional={"provider": optional},
    )
)
def test_what_was_filled_is_stored_decodes_and_needs_no_filling_again(
    texts: dict[str, Any],
) -> None:
    sent = SENT | texts
    try:
        stored = sent | signin.fill(sent, now=NOW)
    except ValueError:
        return
    assert signin.fill(stored, now=NOW) == {}
    notify_of_sign_in.decode(msgspec.json.encode(stored))


def test_a_time_is_written_in_utc_with_three_decimals() -> None:
    assert written(NOW.replace(microsecond=7999).astimezone()) == "2026-11-23T10:05:09.007Z"


# --- custom mails


@pytest.mark.parametrize("member", ["to", "subject", "body"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_custom_mail_needs_all_three(member: str, value: Any) -> None:
    sent = {"to": "a@example.com", "subject": "Hello", "body": "Text"} | {member: value}
    with pytest.raises(
        ValueError, match=r"Missing required fields: to, subject, body|Invalid email address"
    ):
        custom_email.fill(sent)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"to": "a@example"}, "Invalid email address"),
        ({"to": "a@example.com\r\nBcc: b@example.com"}, "Invalid email address"),
        ({"subject": "a\r\nBcc: b@example.com"}, "subject must not contain control characters"),
        ({"subject": "s" * 999}, "subject must have 1 to 998 characters"),
        ({"body": ["x"]}, "body must be a text"),
    ],
)
def test_a_wrong_custom_mail_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        custom_email.fill({"to": "a@example.com", "subject": "Hello", "body": "Text"} | changes)


def test_a_custom_mail_is_stored_as_sent_but_for_control_characters() -> None:
    sent = {"to": "a@example.com", "subject": "Hello", "body": "one\ntwo"}
    assert custom_email.fill(sent) == {}
    assert custom_email.fill(sent | {"body": "one\r\ntwo\x00"}) == {"body": "one\ntwo"}


# --- sending


def said_by_the_service(caplog: pytest.LogCaptureFixture) -> str:
    """Every log line and its fields, but for those of the test's own mail server."""
    return "\n".join(
        f"{record.getMessage()} {vars(record)}"
        for record in caplog.records
        if not record.name.startswith("mail.")
    )


async def test_a_sign_in_is_rendered_sent_and_receipted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with inbox() as box, lifespan(smtp_settings(box.port)) as mailer:
        await notify_of_sign_in(job_of(sign_in(timestamp="2026-11-23T10:05:09Z"), mailer))
        await notify_of_sign_in(job_of(sign_in(), mailer, attempt=2))
        await notify_of_sign_in(job_of(sign_in(locale="en"), mailer, job_id="job-2"))
    first, again, other = box.mails
    assert first["Subject"] == "🔐 Таны бүртгэлд нэвтэрсэн байна - Yellow Books"
    assert other["Subject"] == "🔐 New sign-in to your account - Yellow Books"
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert first["Message-ID"].endswith("@example.org>")
    plain = first.get_body(("plain",))
    assert plain is not None
    assert "18:05" in plain.get_content()
    receipts = [
        record for record in caplog.records if getattr(record, "event", None) == "mail.sent"
    ]
    assert [vars(record)["jobId"] for record in receipts] == ["job-1", "job-1", "job-2"]
    assert {vars(record)["transport"] for record in receipts} == {"smtp"}
    assert "user.name@" not in said_by_the_service(caplog)


async def test_a_custom_mail_is_sent_as_text(caplog: pytest.LogCaptureFixture) -> None:
    async with inbox() as box, lifespan(smtp_settings(box.port)) as mailer:
        payload = CustomEmail(
            to="a.person@example.com", subject="Hello <b>", body="one\n<b>two</b>"
        )
        await send_custom_email(job_of(payload, mailer))
    page = box.mails[0].get_body(("html",))
    assert page is not None
    assert "one<br>&lt;b&gt;two&lt;/b&gt;" in page.get_content()
    assert box.mails[0]["Subject"] == "Hello <b>"


async def test_a_refused_mail_is_not_receipted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        scripted({"RCPT": "550 5.1.1 unknown"}) as server,
        lifespan(smtp_settings(server.port)) as mailer,
    ):
        with pytest.raises(Discard):
            await notify_of_sign_in(job_of(sign_in(), mailer))
    assert "mail.sent" not in {getattr(record, "event", None) for record in caplog.records}


async def test_log_only_mode_prints_the_mail_between_rulers_with_the_address_masked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with lifespan(ServiceSettings()) as mailer:
        await notify_of_sign_in(job_of(sign_in(), mailer))
        await notify_of_sign_in(job_of(sign_in(email="ab@example.com"), mailer))
        await notify_of_sign_in(
            job_of(sign_in(email="john=@example.com", name="john=@example.com"), mailer)
        )
    printed = [
        record.getMessage()
        for record in caplog.records
        if record.name == "pgqueue_service.notifications.mail" and HEADING in record.getMessage()
    ]
    heading, ruler, to, subject, *_, last = printed[0].splitlines()
    assert (heading, ruler, last) == (HEADING, RULER, RULER)
    assert to == "To: u***@example.com"
    assert subject == "Subject: 🔐 Таны бүртгэлд нэвтэрсэн байна - Yellow Books"
    assert "И-мэйл: u***@example.com" in printed[0]
    assert "И-мэйл: ***@example.com" in printed[1]
    assert "john=@" not in printed[2]
    assert "user.name@" not in said_by_the_service(caplog)
    assert "ab@example.com" not in said_by_the_service(caplog)


async def test_the_receipt_of_log_only_mode_says_that_nothing_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with lifespan(ServiceSettings()) as mailer:
        await notify_of_sign_in(job_of(sign_in(), mailer))
    receipt = next(
        record for record in caplog.records if getattr(record, "event", None) == "mail.sent"
    )
    assert vars(receipt)["transport"] == "log"
    assert "not sent" in receipt.getMessage()


async def test_jobs_at_once_share_the_mailer() -> None:
    async with inbox() as box, lifespan(smtp_settings(box.port, smtp_connections=2)) as mailer:
        await asyncio.gather(
            *(notify_of_sign_in(job_of(sign_in(), mailer, job_id=f"job-{n}")) for n in range(20))
        )
        assert len({mail["Message-ID"] for mail in box.mails}) == 20
        assert box.opened == 2


async def test_a_worker_that_sees_a_mail_server_but_no_transport_does_not_start() -> None:
    with pytest.raises(SettingsError, match="MAIL_TRANSPORT"):
        async with lifespan(ServiceSettings(smtp_host="mail.example.org")):
            pass


def test_the_reason_of_a_wrong_address_reaches_whoever_asks() -> None:
    with pytest.raises(InvalidAddress) as refused:
        signin.fill(SENT | {"email": "дорж@example.com"}, now=NOW)
    assert "ASCII" in refused.value.reason
