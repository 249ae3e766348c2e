"""Which bearer tokens are none: one that is guessed opens everything."""

import re
from collections.abc import Iterable

SHORTEST = 10
"""Characters of a token."""

MAKE_ONE = "make one with: openssl rand -hex 32"

_PLACEHOLDER = re.compile(
    r"(?:replace|change|insert|put|enter)[-_ ]?(?:me|it|this|with|here|your|a|the)|your[-_ "
    r"]|example|placeholder|todo|<|>"
)
_LETTERS = re.compile("[a-z]+")
_WORDS = frozenset(
    (
        "password",
        "secret",
        "token",
        "admin",
        "api",
        "test",
        "dev",
        "bearer",
        "key",
        "my",
        "the",
        "pgqueue",
    )
)


def token_problems(name: str, tokens: Iterable[str]) -> list[str]:
    """Why tokens cannot be taken, in sentences that show none of them."""
    tokens = list(tokens)
    problems = []
    if len(set(tokens)) < len(tokens):
        problems.append(f"{name}: a token is in it twice")
    for number, token in enumerate(tokens, 1):
        which = f"{name}: token {number}" if len(tokens) > 1 else f"{name}: its token"
        if _is_placeholder(token):
            problems.append(f"{which} is a placeholder or a common word: {MAKE_ONE}")
        elif len(token) < SHORTEST:
            problems.append(
                f"{which} is shorter than {SHORTEST} characters and can be guessed: {MAKE_ONE}"
            )
        elif len(set(token)) < 4:
            problems.append(f"{which} is a few characters repeated and can be guessed: {MAKE_ONE}")
        elif not token.isprintable() or any(one.isspace() for one in token):
            problems.append(
                f"{which} holds a space or a control character: a header cannot carry it"
            )
    return problems


def in_both(admin: Iterable[str], api: Iterable[str]) -> list[str]:
    """A token has one level."""
    if set(admin) & set(api):
        return [
            (
                "PGQUEUE_ADMIN_TOKENS and PGQUEUE_API_TOKENS share a token: callers of the job "
                "routes would be admins"
            )
        ]
    return []


def _is_placeholder(token: str) -> bool:
    lower = token.casefold()
    parts = _LETTERS.findall(lower)
    return bool(_PLACEHOLDER.search(lower)) or (
        bool(parts) and len(lower) < 24 and all(part in _WORDS for part in parts)
    )
