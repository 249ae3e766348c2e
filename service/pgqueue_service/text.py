"""Control characters in what callers write: refused in what identifies a user or a job, removed
from what is only shown."""

import re

# C0, DEL and C1 controls; the Unicode line ends, which header code splits at; lone surrogates,
# which no database stores; and the marks that turn the direction of what follows, with which a name
# can disguise the text after it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def has_control(text: str) -> bool:
    """Whether a control character, a line end or a lone surrogate is in it."""
    return _CONTROL.search(text) is not None


def shown(text: str, length: int) -> str:
    """One line as it may be shown: without control characters, cut at `length` characters."""
    return _CONTROL.sub("", text)[:length]


def paragraphs(text: str) -> str:
    """A text of several lines: its line ends made `\\n`, its other control characters removed, tabs
    kept."""
    return _CONTROL_IN_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


LONGEST_USER_ID = 190
"""Characters of the id of a user."""

LONGEST_JOB_ID = 255


def identifying(name: str, value: str, longest: int) -> str:
    """A text that names a user, a job or a queue: never cut, never cleaned. Raises ValueError."""
    if not 1 <= len(value) <= longest:
        raise ValueError(f"{name} must have 1 to {longest} characters")
    if has_control(value):
        raise ValueError(f"{name} must not contain control characters")
    return value
