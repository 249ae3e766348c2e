"""Foreign text where people and programs read lines: what controls a terminal, or hides or turns
what follows, is escaped."""

import json
import re
import shlex

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""C0 and C1 controls, line ends, directions of bidirectional text, what has no width, lone
surrogates, tags."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: object, *, lines: bool = False) -> str:
    """The text with control characters written as escapes; with `lines` it may have several
    lines."""

    def escape(found: re.Match[str]) -> str:
        one = found[0]
        if lines and one in "\n\t":
            return one
        code = ord(one)
        width, letter = (2, "x") if code < 0x100 else (4, "u") if code < 0x10000 else (8, "U")
        return _SHORT.get(one) or f"\\{letter}{code:0{width}x}"

    return UNPRINTABLE.sub(escape, str(text))


def safe_json(text: str) -> str:
    """One line of JSON, its strings the same, and none of those characters in it as they are: JSON
    itself lets most of them be."""
    return UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def shell_word(text: str) -> str:
    """The text as one word of a command that people copy into a shell; any characters may be in
    it."""
    if not UNPRINTABLE.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + UNPRINTABLE.sub(_for_shell, escaped) + "'"


def shell_argument(text: str) -> str:
    """The same, where options may stand too."""
    return f"-- {shell_word(text)}" if text.startswith("-") else shell_word(text)


def _for_shell(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"
