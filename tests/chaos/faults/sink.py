"""A mail server that takes everything, until it is stopped, and is there again on the same port
when it is started."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.producer import Book

REPLIES = {
    "EHLO": "250 sink",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "RSET": "250 ok",
    "QUIT": "221 bye",
}


Refuse = Callable[[str, str], str | None]
"""Asked with the step (MAIL, RCPT, DOT: the end of the message) and the recipient, "" before there
is one; a reply is said instead of yes."""


class Sink:
    """Writes the Message-ID of each mail into a book before it says that it has it; `taken` says
    when."""

    def __init__(self, book: Book, refuse: Refuse = lambda step, to: None) -> None:
        self.book = book
        self.refuse = refuse
        self.port = 0
        self.refused = 0
        self.taken: dict[str, float] = {}
        """Recipient -> when its last mail was taken, on the monotonic clock."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Connections end, and new ones are refused."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        to = ""
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(b"220 sink\r\n")
                while line := await reader.readline():
                    verb, argument = (
                        line[:4].decode().upper(),
                        line.decode().partition(":")[2].strip(" <>\r\n"),
                    )
                    to = {"MAIL": "", "RCPT": argument}.get(verb, to)
                    refusal = self._refusal(verb, to)
                    if verb == "DATA":
                        writer.write(b"354 go on\r\n")
                        mail = await reader.readuntil(b"\r\n.\r\n")
                        refusal = self._refusal("DOT", to)
                        if refusal is None:
                            self.book.write(_message_id(mail))
                            self.taken[to] = time.monotonic()
                            refusal = "250 taken"
                    writer.write(f"{refusal or REPLIES.get(verb, '502 what?')}\r\n".encode())
        finally:
            self._writers.discard(writer)
            writer.close()

    def _refusal(self, step: str, to: str) -> str | None:
        reply = self.refuse(step, to) if step in ("MAIL", "RCPT", "DOT") else None
        self.refused += reply is not None
        return reply


def _message_id(mail: bytes) -> str:
    (line,) = (
        line
        for line in mail.split(b"\r\n\r\n")[0].split(b"\r\n")
        if line.lower().startswith(b"message-id:")
    )
    return line.partition(b":")[2].strip().decode()
