"""JSON that means one thing only: UTF-8, no NaN, nothing infinite, no member twice, not too
deep."""

import json
import math
import re
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from pgqueue_service.api.problems import Refusal

DEEPEST = 64
"""Levels of arrays and objects inside each other that a body may have."""

INVALID = (ValueError, RecursionError, msgspec.DecodeError)
"""What decoding raises."""


def decode(body: bytes) -> Any:
    """The body as plain values. Refusal 400."""
    if not body:
        raise Refusal(400, "The request has no body")
    try:
        text = body.decode("utf-8")
        value = decoder.decode(text)
        check(text, DEEPEST)
    except INVALID as error:
        raise invalid(error) from None
    return value


def check(text: str, levels: int) -> None:
    """What decoding does not mind: half of a surrogate pair, and too many levels. Raises one of
    INVALID."""
    if "\\ud" in text or "\\uD" in text:
        try:
            _validate(text)
        except msgspec.DecodeError:
            raise msgspec.DecodeError("half of a surrogate pair stands alone") from None
    if text.count("[") + text.count("{") > levels and _depth(text) > levels:
        raise RecursionError


def invalid(error: Exception) -> Refusal:
    """The answer to one of INVALID."""
    if isinstance(error, RecursionError):
        return Refusal(400, f"The body is nested too deeply: at most {DEEPEST} levels")
    return Refusal(400, f"The body is not valid JSON: {error}")


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


decoder = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_number)
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
_validate = msgspec.json.Decoder().decode


def _depth(text: str) -> int:
    """Levels of arrays and objects inside each other. text: valid JSON."""
    brackets = _NO_BRACKETS.sub("", _STRING.sub("", text))
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
