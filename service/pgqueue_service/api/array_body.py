"""A long body, most of which is one array: it is decoded item by item, so that it never blocks the
event loop for long.

One call decodes a JSON text, and nothing interrupts it, not even another thread. So no call gets
more than twice the size that the body of one job may have.
"""

import codecs
import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, ClassVar

import msgspec

from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.strict_json import DEEPEST, INVALID, check, decode, decoder, invalid
from pgqueue_service.api.structs import NO_OBJECT, known, shaped

LONGEST = 64 * 1024
"""Bytes of the longest item, and of the longest other member of the body."""

_SPACE = re.compile(r"[ \t\r\n]*")
_CUT = 12
"""The decoder complains this close to the end of its text when what it reads goes on behind it: the
longest that it reads in one step is an escape."""


class ArrayBody:
    """`items` yields the items of the member `array`; `whole` is the body, a `shape`, with them.

    A handler takes a subclass as `data`: one for each shape.
    """

    shape: ClassVar[type[msgspec.Struct]]
    array: ClassVar[str]

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._array_read = False
        self._index: int | None = None
        self._members: dict[str, Any] = {}
        self._text = ""
        self._at = 0
        self._taken = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def whole(self, items: list[Any]) -> Any:
        """The body as its shape, when the items were read. Refusal 400 says which member is
        wrong."""
        if self._array_read:
            self._members[self.array] = items
        return shaped(self._members, self.shape)

    def items(self) -> Iterator[Any]:
        """Refusal 400, when it comes to what is wrong."""
        if self._next() != "{":
            if len(self._body) <= LONGEST:
                decode(self._body)  # which says what is wrong
            raise Refusal(400, NO_OBJECT)
        self._at += 1
        if self._next() == "}":
            self._at += 1
        else:
            yield from self._object()
        if self._next():
            raise self._wrong("something follows the object")

    def _object(self) -> Iterator[Any]:
        more = True
        while more:
            name = self._name()
            if name == self.array and self._next() == "[":
                self._members[name], self._array_read = [], True
                yield from self._items()
            else:
                self._members[name] = self._value(DEEPEST - 1, name)
            more = self._goes_on("}")

    def _name(self) -> str:
        if self._next() != '"':
            raise self._wrong("the name of a member is expected")
        name: str = self._value(1, "the name of a member")
        if name in self._members:
            raise self._wrong("an object has a member twice")
        known(name, self.shape)
        if self._next() != ":":
            raise self._wrong("a colon is expected")
        self._at += 1
        return name

    def _items(self) -> Iterator[Any]:
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        self._index, more = 0, True
        while more:
            item = self._value(DEEPEST - 2, "it")
            more = self._goes_on("]")
            yield item
            self._index += 1
        self._index = None

    def _goes_on(self, end: str) -> bool:
        found = self._next()
        if found not in (",", end) or not found:
            raise self._wrong(f"a comma or {end} is expected")
        self._at += 1
        return found == ","

    def _next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._fill()
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._taken >= len(self._body):
                return self._text[self._at : self._at + 1]

    def _value(self, levels: int, what: str) -> Any:
        self._next()
        self._fill()
        text, start = self._text, self._at
        more = self._taken < len(self._body)
        try:
            value, end = decoder.raw_decode(text, start)
            part = text[start:end]
            if (more and end == len(text)) or _longer(part):
                raise self._too_long(what)
            check(part, levels)
        except JSONDecodeError as error:
            if more and (
                error.pos > len(text) - _CUT or error.msg.startswith("Unterminated string")
            ):
                raise self._too_long(what) from None
            raise self._wrong(error.msg) from None
        except msgspec.DecodeError as error:
            raise self._wrong(str(error)) from None
        except INVALID as error:
            raise self._refusal(invalid(error).sentence) from None
        self._at = end
        return value

    def _fill(self) -> None:
        """Sees to it that more than the longest item lies ahead, where there is as much."""
        while len(self._text) - self._at <= LONGEST and self._taken < len(self._body):
            some = self._body[self._taken : self._taken + LONGEST]
            self._taken += len(some)
            try:
                decoded = self._decode(some, self._taken >= len(self._body))
            except UnicodeDecodeError:
                raise self._wrong("it is not UTF-8") from None
            self._text, self._at = self._text[self._at :] + decoded, 0

    def _too_long(self, what: str) -> Refusal:
        return self._refusal(f"{what} is longer than {LONGEST // 1024} KiB")

    def _refusal(self, sentence: str) -> Refusal:
        where = "" if self._index is None else f"{self.array}[{self._index}]: "
        return Refusal(400, where + sentence, index=self._index)

    def _wrong(self, why: str) -> Refusal:
        """The body is not JSON."""
        return invalid(ValueError(why))


def _longer(part: str) -> bool:
    return len(part) > LONGEST // 4 and len(part.encode(errors="surrogatepass")) > LONGEST
