"""One mail: who gets it, what it says, and its bytes on the wire."""

import re
from base64 import b64encode
from binascii import b2a_qp
from datetime import datetime
from email.utils import format_datetime, formataddr
from hashlib import sha256

import idna
import msgspec

from pgqueue_service.text import has_control, paragraphs

INVALID_ADDRESS = "Invalid email address"
LONGEST_ADDRESS = 254
LONGEST_LOCAL_PART = 64
LONGEST_SUBJECT = 998
LONGEST_SENDER_NAME = 200

_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_SENDER = re.compile(r"([^<>]*)<\s*([^<>\s]*)\s*>\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9.]+@[A-Za-z0-9.-]+>")
_ONE_LINE = 68
_WORD = 39  # octets, so that a line with a field's name has at most 76 characters


class InvalidAddress(ValueError):
    """Not an address that mail can be sent to. The text is always the same sentence; `reason` says
    what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(INVALID_ADDRESS)
        self.reason = reason


def valid_address(text: str) -> str:
    """The one address that the text is, as it goes on the wire. Raises InvalidAddress, a
    ValueError.

    At most 254 characters: a dot-atom of at most 64 (RFC 5322, 3.2.3; no quoted strings), one `@`,
    a domain with a dot. No display name, no list. The local part is ASCII, for the rest needs
    SMTPUTF8 from every server on the way. A domain in other letters is written in its ASCII form
    (IDNA 2008), so the answer may differ from the text.
    """
    local, at, domain = text.rpartition("@")
    if not at or "@" in local:
        raise InvalidAddress("an address holds one @")
    if not local.isascii():
        raise InvalidAddress("the part before the @ may hold ASCII characters only")
    if len(local) > LONGEST_LOCAL_PART or not _LOCAL_PART.fullmatch(local):
        raise InvalidAddress("the part before the @ is not one of an address")
    domain = _ascii_domain(domain)
    if "." not in domain or domain.rpartition(".")[2].isdigit():
        raise InvalidAddress("the part after the @ is not a domain with a dot")
    if len(local) + 1 + len(domain) > LONGEST_ADDRESS:
        raise InvalidAddress(f"an address has at most {LONGEST_ADDRESS} characters")
    return f"{local}@{domain}"


def _ascii_domain(domain: str) -> str:
    if not domain.isascii() and len(domain) <= LONGEST_ADDRESS:
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError:
            raise InvalidAddress("the part after the @ is not a domain") from None
    if not _DOMAIN.fullmatch(domain):
        raise InvalidAddress("the part after the @ is not a domain")
    return domain


class Sender(msgspec.Struct, frozen=True):
    """The sender of the mails: the address, and the name shown with it (may be empty)."""

    address: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Sender":
        """From `no-reply@example.com` or `Yellow Books <no-reply@example.com>`; the domain needs no
        dot. Raises ValueError.

        The name is taken as it stands, so that it needs no quotes for a colon or a comma; it may
        have them."""
        if has_control(text):
            raise ValueError("a sender holds no control characters")
        found = _SENDER.fullmatch(text)
        name, address = ((found[1] or "").strip(), found[2]) if found else ("", text.strip())
        local, _, domain = address.rpartition("@")
        if not _LOCAL_PART.fullmatch(local) or "@" in name:
            raise ValueError(
                "not a sender: write one address, or a name and the address in angle brackets, "
                "NAME <ADDRESS>"
            )
        if len(name) > LONGEST_SENDER_NAME:
            raise ValueError(f"a sender's name has at most {LONGEST_SENDER_NAME} characters")
        domain = _ascii_domain(domain)
        if len(local) > LONGEST_LOCAL_PART or len(local) + 1 + len(domain) > LONGEST_ADDRESS:
            raise ValueError(
                f"a sender's address has at most {LONGEST_ADDRESS} characters, "
                f"{LONGEST_LOCAL_PART} before the @"
            )
        if quoted := _QUOTED.fullmatch(name):
            name = _ESCAPED.sub(r"\1", quoted[1])
        return cls(f"{local}@{domain}", name)

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]

    @property
    def header(self) -> str:
        if not self.name:
            return self.address
        if self.name.isascii() and len(self.name) <= _ONE_LINE:
            return formataddr((self.name, self.address))
        return f"{_encoded_words(self.name)}\r\n <{self.address}>"


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail to one address. Raises ValueError for an address, subject or id that could be more
    than that in a header."""

    to: str
    subject: str
    text: str
    html: str | None = None
    message_id: str

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "to", valid_address(self.to))
        # Python below 3.11.15 and 3.12.13 lets some of these through (CVE-2024-6923,
        # CVE-2026-1299).
        if has_control(self.subject) or has_control(self.message_id):
            raise ValueError("a header field holds no control characters")
        if not self.subject.strip() or len(self.subject) > LONGEST_SUBJECT:
            raise ValueError(f"a subject has 1 to {LONGEST_SUBJECT} characters")
        if not _MESSAGE_ID.fullmatch(self.message_id):
            raise ValueError("not a message id")


def message_id(job_id: str, domain: str) -> str:
    """The same Message-ID for every attempt of a job, so that a mail program can find the second
    copy; 128 bits of a SHA-256."""
    return f"<{sha256(job_id.encode()).hexdigest()[:32]}@{domain}>"


def build(mail: Mail, sender: Sender, now: datetime) -> bytes:
    """The message by RFC 5322 and MIME: ASCII throughout, so that no server on the way needs
    8BITMIME.

    Written by hand because `email.message` takes 4 ms for this, and a worker has 1 ms for a whole
    job.
    """
    fields = [
        f"From: {sender.header}",
        f"To: {mail.to}",
        f"Subject: {_subject(mail.subject)}",
        f"Message-ID: {mail.message_id}",
        f"Date: {format_datetime(now)}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
    ]
    if mail.html is None:
        return "\r\n".join(fields).encode("ascii") + b"\r\n" + _part("plain", mail.text)
    # Quoted-printable never writes "=_", so no body can hold the boundary (RFC 2045, 6.7).
    boundary = "=_" + mail.message_id[1:33]
    fields.append(f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"')
    line = f"\r\n--{boundary}".encode("ascii")
    head = "\r\n".join(fields).encode("ascii") + b"\r\n"
    return b"".join(
        [
            head,
            line,
            b"\r\n",
            _part("plain", mail.text),
            line,
            b"\r\n",
            _part("html", mail.html),
            line,
            b"--\r\n",
        ]
    )


def _part(subtype: str, text: str) -> bytes:
    head = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: "
        "quoted-printable\r\n\r\n"
    )
    return head.encode("ascii") + b2a_qp(paragraphs(text).encode(), istext=True).replace(
        b"\n", b"\r\n"
    )


def _subject(subject: str) -> str:
    plain = (
        subject.isascii()
        and len(subject) <= _ONE_LINE
        and "=?" not in subject
        and subject == subject.strip()
    )
    return subject if plain else _encoded_words(subject)


def _encoded_words(text: str) -> str:
    """By RFC 2047, on as many lines as it takes; no character is divided between two words."""
    words, word = [], b""
    for character in text:
        octets = character.encode()
        if len(word) + len(octets) > _WORD:
            words.append(word)
            word = b""
        word += octets
    return "\r\n ".join(f"=?utf-8?b?{b64encode(word).decode('ascii')}?=" for word in [*words, word])
