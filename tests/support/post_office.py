"""A mail server on loopback that can be stopped between any two words that it says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.mailservers import listening, parsed

Doorman = Callable[[str, str], Awaitable[bool]]
"""Asked at every step with its name and the recipient; False closes the connection there and then.
`sender`: MAIL FROM was heard, and no recipient yet. `data`: DATA was heard, nothing said. `go on`:
354 was said. `taken`: the whole message was read, and is delivered; nothing said. `receipted`: 250
was said."""


class Delivered(NamedTuple):
    to: str
    message_id: str


async def nobody(step: str, to: str) -> bool:
    return True


@dataclass
class PostOffice:
    """`delivered` are the mails that it took, `cut` what it had of those (recipient, bytes) whose
    sender left before their end."""

    port: int = 0
    doorman: Doorman = nobody
    delivered: list[Delivered] = field(default_factory=list)
    cut: list[tuple[str, bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                await self._say(writer, "220 post.example.org ESMTP")
                to = ""
                while line := (await reader.readline()).decode().rstrip():
                    verb, argument = line[:4].upper(), line.partition(":")[2].strip("<>")
                    to = {"MAIL": "", "RCPT": argument}.get(verb, to)
                    if not await self._answer(verb, to, reader, writer):
                        break
        finally:
            writer.close()

    async def _answer(
        self, verb: str, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match verb:
            case "MAIL":
                return await self.doorman("sender", to) and await self._say(writer, "250 2.1.0 Ok")
            case "DATA":
                return await self._take(to, reader, writer)
            case "QUIT":
                await self._say(writer, "221 2.0.0 bye")
                return False
        return await self._say(writer, "250 2.0.0 Ok")

    async def _take(
        self, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if not await self.doorman("data", to) or not await self._say(writer, "354 go on"):
            return False
        if not await self.doorman("go on", to):
            return False
        try:
            message = await reader.readuntil(b"\r\n.\r\n")
        except asyncio.IncompleteReadError as error:
            self.cut.append((to, error.partial))
            return False
        self.delivered.append(Delivered(to, str(parsed(message)["Message-ID"])))
        if not await self.doorman("taken", to):
            return False
        return await self._say(
            writer, f"250 2.0.0 Ok: queued as {len(self.delivered)}"
        ) and await self.doorman("receipted", to)

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> bool:
        writer.write(f"{reply}\r\n".encode())
        await writer.drain()
        return True


@asynccontextmanager
async def post_office() -> AsyncIterator[PostOffice]:
    office = PostOffice()
    async with listening(office.serve, None) as office.port:
        yield office
