"""Follows the bytes of an HTTP/1.1 connection ahead of the parser, so that the parser gets whole
heads and bounded bodies only.

Both of uvicorn's parsers keep what they are sent until a head is complete, however long it gets,
and differ in what they forgive. What is handed on here is strict, and the same for both.
"""

import re

HEAD = 64 * 1024
"""The longest request line with all headers, in bytes; the longest trailers too."""

LINES = 256
"""The most headers of a request."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_BEGINNING = re.compile(_TOKEN + rb"|\r?\Z")
# Possessive: what does not match is known in one pass.
_REQUEST = re.compile(
    rb"%b{1,32}+ [\x21-\x7e]++ HTTP/1\.([01])\r\n((?:%b++:[^\r\n\0]*+\r\n)*+)\r\n"
    % (_TOKEN, _TOKEN)
)
_FRAMING = re.compile(
    rb"^(content-length|transfer-encoding):([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_FIRST_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]{0,16}(?:;[^\r\n\0]*+)?\r\n")
_NEXT_SIZE = re.compile(rb"\r\n" + _FIRST_SIZE.pattern)
_LONGEST_SIZE_LINE = 4096


class Malformed(Exception):
    """A request that is not passed on: the status and the sentence of its answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Framing:
    """`feed` takes what arrived, `next` gives what the parser may have of it.

    Never holds more than a head and what was fed last.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._left = 0
        self._size_line: re.Pattern[bytes] | None = None
        self._in_trailers = False
        self._body = self._overhead = 0

    @property
    def in_body(self) -> bool:
        """Whether the body of a request is still to come, or the rest of it."""
        return self._left > 0 or self._size_line is not None

    @property
    def held(self) -> int:
        """Bytes that were fed and not handed on."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """A whole head, or a part of a body; None when more must arrive first. Raises Malformed."""
        if not self._buffer:
            return None
        if self._size_line is not None:
            return self._chunks(self._size_line)
        if self._left:
            piece = self._take(min(self._left, len(self._buffer)))
            self._left -= len(piece)
            return piece
        return self._head()

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        return piece

    def _head(self) -> bytes | None:
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]  # some clients end a body with a line that belongs to nothing
            self._searched = 0
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3), HEAD)
        if end < 0:
            self._searched = len(self._buffer)
            self._refuse_early()
            return None
        self._searched = 0
        head = self._take(end + 4)
        found = _REQUEST.fullmatch(head)
        if not found:
            raise Malformed(400, "The request is not valid HTTP/1.1")
        if found[2].count(b"\n") > LINES:
            raise Malformed(431, f"The request has more than {LINES} headers")
        self._expect_body(found[1], found[2])
        return head

    def _refuse_early(self) -> None:
        line = self._buffer.find(b"\n", 0, HEAD)
        if len(self._buffer) >= HEAD:
            long = "URL is" if line < 0 else "headers are"
            raise Malformed(
                414 if line < 0 else 431, f"The request's {long} longer than {HEAD // 1024} KiB"
            )
        if (
            line == 0
            or (line > 0 and self._buffer[line - 1] != 13)
            or not _BEGINNING.match(self._buffer)
        ):
            raise Malformed(400, "The request is not valid HTTP/1.1")

    def _expect_body(self, minor: bytes, headers: bytes) -> None:
        if not (framing := _FRAMING.findall(headers)):
            return
        if len(framing) > 1:
            raise Malformed(
                400,
                "The request must have one Content-Length or one Transfer-Encoding, and not both",
            )
        name, value = framing[0][0].lower(), framing[0][1].strip(b" \t")
        if name == b"content-length":
            if not _LENGTH.fullmatch(value):
                raise Malformed(400, "Content-Length must be a whole number")
            self._left = int(value)
        elif minor == b"1" and value.lower() == b"chunked":
            self._size_line = _FIRST_SIZE
            self._body = self._overhead = 0
        else:
            raise Malformed(400, "Transfer-Encoding must be chunked, in HTTP/1.1")

    def _chunks(self, size_line: re.Pattern[bytes]) -> bytes | None:
        """All that is there, as one chunk: without extensions and trailers, which nothing here
        reads."""
        parts: list[bytes] = []
        at, ended = 0, False
        start = -1
        while start < at < len(self._buffer) and not ended:
            start = at
            if self._in_trailers:
                at, ended = self._trailer(at)
            elif self._left:
                part = bytes(self._buffer[at : at + self._left])
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._body += len(part)
            else:
                at = self._size(size_line, at)
                size_line = _NEXT_SIZE if at > start else size_line
        del self._buffer[:at]
        body = b"".join(parts)
        piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        self._size_line = size_line
        if ended:
            self._size_line, self._in_trailers = None, False
            piece += b"0\r\n\r\n"
        return piece or None

    def _size(self, size_line: re.Pattern[bytes], at: int) -> int:
        """Behind the line that says how long the next chunk is; `at` itself when it is not all
        there."""
        found = size_line.match(self._buffer, at)
        if not found:
            if self._buffer.find(b"\n", at + 2) >= 0 or len(self._buffer) - at > _LONGEST_SIZE_LINE:
                raise Malformed(400, "The request's chunks are not valid HTTP/1.1")
            return at
        self._count(found.end() - at)
        self._left = int(found[1], 16)
        if not self._left:
            self._in_trailers = True
            self._overhead = 0
        return found.end()

    def _trailer(self, at: int) -> tuple[int, bool]:
        """Behind the next line of the trailers, and whether it ended them; `at` itself when it is
        not all there."""
        end = self._buffer.find(b"\r\n", at)
        if (end if end >= 0 else len(self._buffer)) - at + self._overhead > HEAD:
            raise Malformed(431, f"The request's trailers are longer than {HEAD // 1024} KiB")
        if end < 0:
            return at, False
        self._overhead += end + 2 - at
        return end + 2, end == at

    def _count(self, overhead: int) -> None:
        # Chunks of a byte cost a hundred times what their bytes do, and extensions without end cost
        # time.
        self._overhead += overhead
        if self._overhead > HEAD + 2 * self._body:
            raise Malformed(400, "The request's chunks hold almost nothing: send larger ones")
