"""JSON that means one thing only: UTF-8, no NaN, nothing infinite, no member twice, not too deep."""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from service.problems import Refusal

DEEPEST = 64
"""Levels of arrays and objects inside each other that a body may have."""


def decode(body: bytes, levels: int = DEEPEST) -> Any:
    """The body as plain values. Refusal 400."""
    if not body:
        raise Refusal(400, "The request has no body")
    try:
        value = _decode(body.decode("utf-8"))
        if b"\\ud" in body or b"\\uD" in body:
            # Half of a surrogate pair, perhaps; the one above does not mind.
            _validate(body)
        if body.count(b"[") + body.count(b"{") > levels:
            _measure(value, levels - 1)
    except RecursionError:
        raise Refusal(400, f"The body is nested too deeply: at most {DEEPEST} levels") from None
    except (ValueError, msgspec.DecodeError) as error:
        raise Refusal(400, f"The body is not valid JSON: {error}") from None
    return value


def split(body: bytes, member: str) -> Sequence[msgspec.Raw] | None:
    """The items of an object's member that is an array, undecoded; the rest of the body is checked. None when it is not of that
    shape. Refusal 400."""
    try:
        items = bytes(_members(body)[member])
        found = _array(items)
    except (msgspec.DecodeError, RecursionError, KeyError):
        return None
    # Of a member that comes twice the last one was kept: without that one, both names are still there to be seen.
    before, _, after = body.rpartition(items)
    decode(before + b"[]" + after)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a member twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_decode = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_number).decode
_validate = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _measure(value: Any, levels: int) -> None:
    if levels < 0:
        raise RecursionError
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        if isinstance(one, dict | list):
            _measure(one, levels - 1)
