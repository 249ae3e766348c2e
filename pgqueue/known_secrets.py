"""The secrets of this process by their values: a text that repeats one, in any spelling, is logged
and stored without it.

Patterns find a secret by the text around it. A server that answers "wrong: hunter2 for ana" puts no
such text around it.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from html import escape
from urllib.parse import quote, quote_plus

SHORTEST = 5
"""Characters of a secret that is looked for: a shorter one is in half of all words."""

REMOVED = "***"

_LETTER = r"[^\W\d_]"

_LABEL = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)|pwd|secret|tokens?|(?:api|access|private)[-_]?key|bearer|basic|authorization)"
)
_LABELS = r"(?:\\{0,15}+['\"]|%2[27])?\s*(?:[=:]|%3[AD])|(?:\s+|%20)[^\s]"
"""What follows a label, and the secret after it. A password that is the word "password" must not be
taken out of `password=hunter2`: the patterns that hide what follows would not know it again."""

_known: dict[str, re.Pattern[str]] = {}
"""Spelling -> what finds it, the longest first: one secret may hold another. Of the process, and
not handed in, for logs and stored texts are masked where no settings are. Replaced as a whole,
never changed: another thread may be reading it."""


def learn(secrets: Iterable[str | None], user: str | None = None) -> None:
    """Remembers the secrets for `hide`. `user` is the name that goes with them when they are sent
    by SASL PLAIN (RFC 4616)."""
    global _known
    given = {secret for secret in secrets if secret}
    spellings = {one for secret in given for one in _spellings(secret, user)}
    if not spellings <= _known.keys():
        new = {one: _finder(one, word=one in given) for one in spellings - _known.keys()}
        more = _known | new
        _known = dict(sorted(more.items(), key=lambda one: len(one[0]), reverse=True))


def hide(text: str) -> str:
    """The text without any of them."""
    for spelling, finder in _known.items():
        if spelling in text:
            text = finder.sub(REMOVED, text)
    return text


def _spellings(secret: str, user: str | None) -> set[str]:
    octets = secret.encode("utf-8", "surrogateescape")
    sent = [octets]
    if user:
        name = user.encode("utf-8", "surrogateescape")
        sent += [b"\0" + name + b"\0" + octets, name + b"\0" + name + b"\0" + octets]
    spelled = {
        secret,
        " ".join(secret.split()),
        quote(octets, safe=""),
        quote(octets),
        quote_plus(octets),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        repr(octets)[2:-1],
        escape(secret),
        *(
            encode(one).decode().rstrip("=")
            for one in sent
            for encode in (b64encode, urlsafe_b64encode)
        ),
    }
    return {one for one in spelled if len(one) >= SHORTEST}


def _finder(spelling: str, *, word: bool) -> re.Pattern[str]:
    # A password that is a word, "postgres" for one, is hidden where it stands alone, and not in the
    # middle of another word.
    alone = len(spelling) < 8 or (word and spelling.isalpha())
    found = re.escape(spelling)
    if _LABEL.fullmatch(spelling):
        return re.compile(rf"(?<!{_LETTER}){found}(?!{_LETTER}|{_LABELS})")
    return re.compile(rf"(?<!{_LETTER}){found}(?!{_LETTER})" if alone else found + "={0,2}")
