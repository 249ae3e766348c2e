"""One mail goes to one address, and nothing that a caller sends becomes a header field of its
own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications.mail.message import (
    INVALID_ADDRESS,
    InvalidAddress,
    Mail,
    Sender,
    build,
    message_id,
    valid_address,
)

from tests.support.mailservers import NOW, a_mail, parsed

SENDER = Sender.parse("Yellow Books <no-reply@example.org>")
LINE_ENDS = "\r\n\x00\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

local_parts = st.from_regex(
    r"\A[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(\.[A-Za-z0-9_+-]{1,10}){0,2}\Z"
)
domains = st.from_regex(r"\A([a-z0-9]{1,20}(-[a-z0-9]{1,10})?\.){1,3}[a-z]{2,10}\Z")
addresses = st.builds("{}@{}".format, local_parts, domains)


@given(addresses)
def test_an_ordinary_address_is_taken_as_it_is(address: str) -> None:
    assert valid_address(address) == address


@given(addresses)
def test_a_mail_has_exactly_one_recipient_for_any_mail_program(address: str) -> None:
    message = parsed(build(a_mail(to=address), SENDER, NOW))
    assert [one.addr_spec for one in message["To"].addresses] == [address]
    assert not message["To"].defects


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "user",
        "user@",
        "@example.com",
        "user@example",
        "user@@example.com",
        "a@b@example.com",
        "user@example.com,other@example.com",
        "user@example.com, other@example.com",
        "user@example.com;other@example.com",
        "user@example.com other@example.com",
        "User <user@example.com>",
        "<user@example.com>",
        '"user"@example.com',
        "us er@example.com",
        " user@example.com",
        "user@example.com ",
        "user@example.com\r\nBcc: other@example.com",
        "user@example.com\n",
        "us\x00er@example.com",
        "us\ter@example.com",
        ".user@example.com",
        "user.@example.com",
        "us..er@example.com",
        "user@.example.com",
        "user@example.com.",
        "user@example..com",
        "user@-example.com",
        "user@example-.com",
        "user@exa_mple.com",
        "user@[192.0.2.1]",
        "user@192.0.2.1",
        "user@exam\u2028ple.com",
        "user(comment)@example.com",
        "user@example.com?bcc=x@example.com",
        "хэрэглэгч@example.com",
        "u\ud800ser@example.com",
        "user@\ud800.com",
        "u" * 65 + "@example.com",
        "user@" + "a" * 64 + ".com",
        "user@" + "a." * 130 + "com",
        "user@" + "ё" * 5000 + ".com",
    ],
)
def test_what_is_not_one_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress, match=f"^{INVALID_ADDRESS}$") as refused:
        valid_address(text)
    assert refused.value.reason


def test_an_address_may_have_254_characters_and_no_more() -> None:
    domain = ".".join(["d" * 61] * 3)
    longest = "u" * 64 + "@" + domain + ".mn"
    assert len(longest) == 253
    assert valid_address(longest + "o")
    with pytest.raises(InvalidAddress):
        valid_address(longest + "om")


def test_a_non_ascii_local_part_is_refused_and_the_reason_says_so() -> None:
    with pytest.raises(InvalidAddress) as refused:
        valid_address("дорж@example.com")
    assert "ASCII" in refused.value.reason


def test_a_domain_in_other_letters_is_written_in_its_ascii_form() -> None:
    assert valid_address("user@жишээ.мон") == "user@xn--f1ae2cuaa.xn--l1acc"


@given(st.text(max_size=40), st.sampled_from(LINE_ENDS), st.text(max_size=40))
def test_a_control_character_anywhere_is_never_part_of_an_address(
    before: str, control: str, after: str
) -> None:
    for text in (
        f"{before}{control}{after}",
        f"user{control}@example.com",
        f"{before}{control}@example.com{after}",
    ):
        with pytest.raises(InvalidAddress):
            valid_address(text)


@given(st.text())
def test_whatever_is_taken_is_one_plain_address(text: str) -> None:
    try:
        address = valid_address(text)
    except InvalidAddress:
        return
    assert address.isascii()
    assert address.count("@") == 1
    assert not set(address) & set(' ,;<>"()[]\\\r\n\t')


@given(st.text(max_size=30), st.sampled_from(LINE_ENDS), st.text(max_size=30))
def test_a_line_end_in_a_header_field_is_refused_by_our_own_code(
    before: str, control: str, after: str
) -> None:
    value = f"x{before}{control}{after}"
    with pytest.raises(ValueError, match="control"):
        a_mail(subject=value)
    with pytest.raises(ValueError, match="control"):
        a_mail(message_id=f"<{value}@example.org>")
    with pytest.raises(ValueError, match="control"):
        Sender.parse(f"{value} <no-reply@example.org>")


@given(st.text(min_size=1, max_size=300))
def test_any_subject_arrives_as_it_was_and_adds_no_field(subject: str) -> None:
    try:
        mail = a_mail(subject=subject)
    except ValueError:
        return
    raw = build(mail, SENDER, NOW)
    message = parsed(raw)
    assert message["Subject"] == subject
    assert sorted(message.keys()) == [
        "Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject",
        "To",
    ]  # fmt: skip
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 78


@pytest.mark.parametrize(
    "subject", ["s" * 998, "үг " * 300, "=?utf-8?q?Bcc?=", " padded ", "a" * 69, "Ц" * 998]
)
def test_long_and_odd_subjects_survive(subject: str) -> None:
    assert parsed(build(a_mail(subject=subject), SENDER, NOW))["Subject"] == subject


@pytest.mark.parametrize("subject", ["", "   ", "s" * 999])
def test_a_subject_has_one_to_998_characters(subject: str) -> None:
    with pytest.raises(ValueError, match="998"):
        a_mail(subject=subject)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t .=-_<>&"))


@given(texts, texts | st.none())
def test_bodies_arrive_unchanged_in_seven_bits(text: str, html: str | None) -> None:
    raw = build(a_mail(text=text, html=html), SENDER, NOW)
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(len(line) for line in raw.split(b"\r\n")) <= 78
    parts = [part for part in parsed(raw).walk() if not part.is_multipart()]
    assert [part.get_payload(decode=True) for part in parts] == [
        body.replace("\n", "\r\n").encode() for body in (text, html) if body is not None
    ]


def test_a_body_cannot_forge_the_boundary() -> None:
    mail = a_mail()
    boundary = parsed(build(mail, SENDER, NOW)).get_boundary()
    forged = f"--{boundary}\nContent-Type: text/html\n\n<b>forged</b>\n--{boundary}--\n"
    message = parsed(build(a_mail(text=forged), SENDER, NOW))
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_a_message_says_who_when_and_that_no_person_wrote_it() -> None:
    message = parsed(build(a_mail(), SENDER, NOW))
    assert str(message["From"]) == "Yellow Books <no-reply@example.org>"
    assert message["Date"].datetime == NOW
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert [part["Content-Transfer-Encoding"] for part in message.iter_parts()] == [
        "quoted-printable"
    ] * 2
    assert not message.defects


def test_every_attempt_of_a_job_has_the_same_message_id_and_no_two_jobs_share_one() -> None:
    assert message_id("job-1", "example.org") == message_id("job-1", "example.org")
    assert message_id("job-1", "example.org") != message_id("job-2", "example.org")
    message = parsed(
        build(a_mail(message_id=message_id("зах\r\nидал", "example.org")), SENDER, NOW)
    )
    assert message["Message-ID"].endswith("@example.org>")


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("no-reply@example.org", "no-reply@example.org"),
        ("no-reply@localhost", "no-reply@localhost"),
        ("Yellow Books <no-reply@example.org>", "Yellow Books <no-reply@example.org>"),
        ('"Books, Yellow" <no-reply@example.org>', '"Books, Yellow" <no-reply@example.org>'),
        ("Шар ном <no-reply@example.org>", "Шар ном <no-reply@example.org>"),
    ],
)
def test_a_sender_may_have_a_name(text: str, header: str) -> None:
    assert str(parsed(build(a_mail(), Sender.parse(text), NOW))["From"]) == header


@pytest.mark.parametrize(
    "text",
    ["", "nobody", "a@example.org, b@example.org", "A <a@example.org> b", "A <a b@example.org>"],
)
def test_a_sender_is_one_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"sender|address"):
        Sender.parse(text)


def test_a_mail_is_frozen() -> None:
    mail: Mail = a_mail()
    with pytest.raises(AttributeError):
        mail.to = "other@example.com"
