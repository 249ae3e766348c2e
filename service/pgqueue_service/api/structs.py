"""Plain JSON values as structs, with an error message that names the member that is wrong."""

import re
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

import msgspec

from pgqueue_service.api.problems import Refusal

T = TypeVar("T")

NO_OBJECT = "The body must be a JSON object"

_LONGEST_NAME = 64
"""Characters of a name that is not known, in the sentence that says so."""

_MISSING = re.compile("Object missing required field `([^`]*)`")


def shaped(value: Any, shape: type[T], what: str = "The body") -> T:
    """The plain values as a struct. Refusal 400 names the member that is wrong, or unknown where
    the shape takes no others."""
    if not isinstance(value, dict):
        raise Refusal(400, NO_OBJECT if what == "The body" else f"{what} must be a JSON object")
    for name in value:
        known(name, shape)
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise Refusal(400, sentence(error)) from None


def known(name: str, shape: Any) -> None:
    """Refusal 400 when the shape has no such member and takes no others."""
    names = _members(shape)
    if names and name not in names:
        close = get_close_matches(name[:_LONGEST_NAME].lower(), [one.lower() for one in names], 1)
        meant = next((one for one in names if one.lower() in close), None)
        advice = f"did you mean {meant}?" if meant else f"known are {', '.join(names)}"
        raise Refusal(400, f"Unknown member {name[:_LONGEST_NAME]}: {advice}")


@cache
def _members(shape: Any) -> tuple[str, ...]:
    if not shape.__struct_config__.forbid_unknown_fields:
        return ()
    return tuple(field.encode_name for field in msgspec.structs.fields(shape))


def sentence(error: msgspec.ValidationError) -> str:
    """msgspec's message with the member in front."""
    said, at, path = str(error).partition(" - at `$")
    said = _MISSING.sub(r"Missing required field: \1", said)
    member = path.rstrip("`").lstrip(".")
    return f"{member}: {said[:1].lower()}{said[1:]}" if at and member else said
