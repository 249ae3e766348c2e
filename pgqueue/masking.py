"""Masks e-mail addresses and secrets in a text before it is logged or stored."""

import re
from typing import Literal

from pgqueue.known_secrets import hide

# Every pattern takes a time in proportion to the length of any text: the worker and the thread of
# its leases stand still while it runs. So a repetition is counted, or cannot be split in two ways,
# or is part of the match as far as it was read.
ADDRESS = re.compile(
    r"""[^\s<>"(),:;\[\]@\\]{1,64}@[^\s<>"'(),:;\[\]@=/\\]+\.[^\s<>"'(),:;\[\]@=/\\.]+"""
)


_BEFORE_ADDRESS = re.compile(r"""^(.*[='/])(?=[^='/]+@)""")


_ENCODED_ADDRESS = re.compile(r"([\w.+-]{1,64})%40((?:[\w-]+\.)+\w+)", re.IGNORECASE)


# To the last @ before a slash: who wrote one into a password meant it to be part of that.
_URL_PASSWORD = re.compile(r"(\w://[^\s:/@]*+):([^\s@]*+)(@(?:[^\s@/]*+@)*(?=[^\s/@]))?")


_QUOTE = r"""(?:\\{0,15}+['"]|%2[27])"""


_IS = rf"{_QUOTE}?\s*(?:[=:]|%3[AD])\s*"


_SECRET = re.compile(
    r"(?i)(pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|private)[-_]?key)"
    rf"({_IS})(?:({_QUOTE})(?:(?!\3)(?:\\.|[^\n]))++|[^\s'\",;&]+)"
)


_SECRETS = re.compile(
    rf"(?i)(tokens{_IS})(?:\([^)]{{1,65536}}+\)?|\[[^\]]{{1,65536}}+\]?|[^\s;&]+?(?=,?(?:[\s;&]|$)))"
)


_BEARER = re.compile(
    r"(?i)\b(bearer|authorization['\"]?\s*[=:]\s*['\"]?basic)(?:\s+|%20)[^\s'\",;&]+"
)


ERROR_LENGTH = 2_000
"""Characters of an error that are stored."""

STACK_LENGTH = 8_000
"""Characters of a stack trace that are stored: its end."""

HALF = 4_096
"""Characters left out where a text is cut, when no space or line end comes sooner."""


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def mask_address(address: str) -> str:
    """`u***@example.com`; a local part of one or two characters disappears altogether. Masking
    again changes nothing."""
    local, _, domain = address.rpartition("@")
    return f"{local[0]}***@{domain}" if len(local) > 2 and local != "***" else f"***@{domain}"


def mask(text: str) -> str:
    """The text without a whole e-mail address, without a secret of this process, and without what
    looks like one: the password of a URL, a `password=...`."""
    text = hide(text)
    if "://" in text:
        text = _URL_PASSWORD.sub(_without_password, text)
    if "@" in text:
        text = ADDRESS.sub(_masked, text)
    if "%40" in text:
        text = _ENCODED_ADDRESS.sub(r"***%40\2", text)
    if "=" in text or ":" in text or "%3" in text:
        text = _SECRETS.sub(r"\1***", _SECRET.sub(r"\1\2\3***", text))
    return _BEARER.sub(r"\1 ***", text)


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:***@" if found[3] else found[0]


def _masked(found: re.Match[str]) -> str:
    # What stands before the address as in "to=ana@example.com" is kept; a local part may itself
    # hold or end in such a character.
    lead = _BEFORE_ADDRESS.match(found[0])
    before = lead[1] if lead else ""
    return before + mask_address(found[0][len(before) :])


def clean(text: str, length: int, *, keep: Literal["start", "end"] = "start") -> str:
    """The text as it may be stored or logged: no NUL, no lone surrogates, masked, at most `length`
    characters."""
    text = mask(_UNSTORABLE.sub("\ufffd", cut(text, 4 * length + HALF, keep)))
    if len(text) <= length:
        return text
    return text[: length - 1] + "…" if keep == "start" else "…" + text[-length + 1 :]


def cut(text: str, length: int, keep: Literal["start", "end"] = "start") -> str:
    """At most `length` characters of a text that is not masked yet: to mask a megabyte takes long.
    Where it is cut there may stand half an address or half a secret, which no pattern knows: up to
    the next space, or the next line, it is left out."""
    if len(text) <= length:
        return text
    # A secret of our own is taken out first, that it may not be cut in two.
    if keep == "start":
        window = hide(text[: length + HALF])[:length]
        length = len(window)
        return (
            window[: max(window.rfind(" ", -HALF), window.rfind("\n", -HALF), length - HALF, 0)]
            + "…"
        )
    window = hide(text[-length - HALF :])[-length:]
    line = window.find("\n", 0, HALF)
    return "…" + window[HALF if line < 0 else line :]
