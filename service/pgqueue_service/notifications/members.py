"""Checks of the members of a payload, with error messages for the caller."""

from collections.abc import Iterable, Mapping
from typing import Any


def require(sent: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raises ValueError when one of the members is missing, null or empty. The sentence begins with
    all that are required, which is what callers match on; then it says which are missing, unless
    all are."""
    absent = [name for name in names if not sent.get(name)]
    if absent:
        sentence = f"Missing required fields: {', '.join(names)}"
        if len(absent) < len(names):
            sentence += f": {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
        raise ValueError(sentence)


def require_text(sent: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises ValueError when one of the members is there and is no text."""
    for name in names:
        if not isinstance(sent.get(name), str | None):
            raise ValueError(f"{name} must be a text")
