"""JSON that means one thing only: UTF-8, no NaN, nothing infinite, no member twice, not too deep."""

import json
import math
import re
import time
from typing import Any, NoReturn

import msgspec

from service.problems import Refusal

DEEPEST = 64
"""Levels of arrays and objects inside each other that a body may have."""


def decode(body: bytes) -> Any:
    """The body as plain values. Refusal 400."""
    if not body:
        raise Refusal(400, "The request has no body")
    try:
        value = _decoder.decode(body.decode("utf-8"))
        if b"\\ud" in body or b"\\uD" in body:
            # Half of a surrogate pair, perhaps; the one above does not mind.
            _validate(body)
        if body.count(b"[") + body.count(b"{") > DEEPEST:
            _measure(value, DEEPEST - 1)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise _refusal(error) from None
    return value


class Items:
    """The items of an array that is a member of the body, decoded when they are asked for: whoever sends millions is refused
    before they are all there."""

    def __init__(self, array: str) -> None:
        self._text = array
        self._at = _after_space(array, 1)

    @classmethod
    def of(cls, body: bytes, member: str) -> "Items | None":
        """None when the body is no object with such a member, or is not JSON. What stands around it is checked: Refusal 400."""
        try:
            array = bytes(_members(body)[member])
        except (msgspec.DecodeError, RecursionError, KeyError):
            return None
        if not array.startswith(b"["):
            return None
        # Of a member that comes twice the last one was kept: without that one, both names are still there to be seen.
        before, _, after = body.rpartition(array)
        decode(before + b"[]" + after)
        return cls(array.decode("utf-8"))

    def some(self, seconds: float) -> list[Any]:
        """The next ones, as many as can be read in that time; none at the end. One that is refused is a Refusal, and the last."""
        found: list[Any] = []
        until = time.monotonic() + seconds
        while self._text[self._at] != "]" and (not found or time.monotonic() < until):
            try:
                found.append(self._next())
            except (ValueError, RecursionError) as error:
                self._at = len(self._text) - 1
                found.append(_refusal(error))
        return found

    def _next(self) -> Any:
        text, start = self._text, self._at
        value, end = _decoder.raw_decode(text, start)
        if text.count("[", start, end) + text.count("{", start, end) > DEEPEST - 2:
            _measure(value, DEEPEST - 3)
        end = _after_space(text, end)
        self._at = end if text[end] == "]" else _after_space(text, end + 1)
        return value


def _refusal(error: Exception) -> Refusal:
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


_decoder = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_number)
_validate = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_space = re.compile(r"[ \t\r\n]*")


def _after_space(text: str, at: int) -> int:
    found = _space.match(text, at)
    return found.end() if found else at


def _measure(value: Any, levels: int) -> None:
    if levels < 0:
        raise RecursionError
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        if isinstance(one, dict | list):
            _measure(one, levels - 1)
