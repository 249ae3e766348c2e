"""What a refusal by a mail server is about: us (our account, address or host), the server itself,
or this one mail.

Decided by the step of the dialogue, the reply code (RFC 5321), the enhanced status code (RFC 3463,
RFC 5248 and the IANA registry; RFC 7372 and 7505 for X.7.20 to X.7.27 and null MX), and by the
words of the reply, because providers put their quotas and permissions under codes that mean a bad
mailbox elsewhere. Those words are matched in English only, as servers write them.
"""

import re
from enum import Enum
from typing import NamedTuple

from pgqueue_service.notifications.mail.transports.words import (
    about_server,
    about_us,
    about_us_or_mailbox,
    bare,
    names_mailbox,
)


class Subject(Enum):
    """What is refused."""

    US = "us"
    """Every mail of ours would be refused: a quota, a permission, a login, our domain or
    address."""
    SERVER = "server"
    """The server cannot take mail now, whosever it is."""
    MAIL = "mail"
    """This recipient or this mail. The server works."""


class Reply(NamedTuple):
    """One reply: its code, its text without the code (lines separated by newlines), and the
    recipient of the mail."""

    code: int
    text: str
    address: str = ""

    @property
    def permanent(self) -> bool:
        return 500 <= self.code < 600

    @property
    def enhanced(self) -> tuple[int, int] | None:
        """Subject and detail of the enhanced status code: (7, 1) for 5.7.1 and 4.7.1. The class is
        that of the code."""
        found = _ENHANCED.match(self.text)
        return (int(found[1]), int(found[2])) if found else None


MAIL_STEPS = frozenset(("RCPT TO", "DATA", "end of data"))
"""Steps at which a mail of its own can be refused; at all others each mail would be."""

CLOSING = 421

_ENHANCED = re.compile(r"\s*#?[245]\.([0-9]{1,3})\.([0-9]{1,3})(?![.0-9])")

# RFC 4954, section 6: the server wants another login before any command. 523 and 525 are of RFC
# 5248.
_NOT_LOGGED_IN = frozenset((523, 525, 530, 534, 535, 538))
# A bad sequence of commands; a host that takes no mail (RFC 7504).
_NOT_OF_A_MAIL = frozenset((503, 521))

# These are about the recipient, also where a relay quotes another server after them.
_RECIPIENT = frozenset([(1, n) for n in (1, 2, 3, 4, 6, 10)] + [(2, n) for n in (2, 3, 4)])
_SENDER = frozenset([(1, 7), (1, 8), (1, 90)])
_PERMISSION = frozenset(
    [(4, 5)]  # congestion by the RFC, the daily quota at Gmail
    + [(2, n) for n in range(250, 260)]
    + [
        (7, n)
        for n in (3, 4, 8, 9, 10, 11, 12, 13, 14, *range(20, 29), 57, 60, 64, 139, *range(232, 235))
    ]
    # Microsoft: our address, domain or tenant is blocked. In between are codes of the recipient's
    # own rules.
    + [
        (7, n)
        for n in (
            *range(500, 505),
            506,
            508,
            509,
            *range(511, 514),
            515,
            *range(606, 650),
            *range(700, 751),
        )
    ]
)
_OURS = _SENDER | _PERMISSION
_TOO_BIG = (3, 4)
_BROKEN_SYSTEM = frozenset([(3, 2), (3, 5)])
_TOO_MANY_RECIPIENTS = (5, 3)

_ADDRESS, _MAILBOX, _SYSTEM, _NETWORK, _PROTOCOL, _CONTENT, _POLICY = range(1, 8)


def subject(step: str, reply: Reply) -> Subject:
    """What a reply other than yes at that step is about."""
    if reply.code in _NOT_LOGGED_IN:
        return Subject.US
    text = bare(reply.text, reply.address)
    if step not in MAIL_STEPS:
        return Subject.US if reply.permanent or about_us(text, permanent=False) else Subject.SERVER
    if not 400 <= reply.code < 600:
        return Subject.SERVER
    enhanced = reply.enhanced
    if enhanced in _RECIPIENT:
        return Subject.MAIL
    if about_us(text, permanent=reply.permanent) or (reply.permanent and enhanced in _OURS):
        return Subject.US
    area = enhanced[0] if enhanced else 0
    if (
        area not in (_ADDRESS, _MAILBOX)
        and about_us_or_mailbox(text)
        and not _names_recipient(reply)
    ):
        return Subject.US
    if reply.permanent:
        return (
            Subject.SERVER
            if reply.code in _NOT_OF_A_MAIL or enhanced in _BROKEN_SYSTEM
            else Subject.MAIL
        )
    if reply.code == CLOSING or enhanced in _OURS:
        return Subject.SERVER
    return _passing(step, reply.code, enhanced, text)


def _passing(step: str, code: int, enhanced: tuple[int, int] | None, text: str) -> Subject:
    """The same for a temporary refusal. One at RCPT TO is about the recipient unless it says
    otherwise: greylisting has no code of its own. One of the whole mail is about the server unless
    it says otherwise."""
    area = enhanced[0] if enhanced else 0
    if area in (_ADDRESS, _MAILBOX, _CONTENT) or enhanced in (_TOO_BIG, _TOO_MANY_RECIPIENTS):
        return Subject.MAIL
    if area in (_SYSTEM, _NETWORK, _PROTOCOL):
        return Subject.SERVER
    if names_mailbox(text):
        return Subject.MAIL
    if about_server(text):
        return Subject.SERVER
    if area == _POLICY or code == 450:
        return Subject.MAIL
    return Subject.MAIL if step == "RCPT TO" and code not in (452, 455) else Subject.SERVER


def _names_recipient(reply: Reply) -> bool:
    return bool(reply.address) and reply.address.lower() in reply.text.lower()
