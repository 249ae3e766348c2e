"""A TCP proxy in front of Postgres that does to connections what networks do: cuts them, also
between a commit and its answer; swallows everything without a word; leads to another server."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.scene import a_turn

READY = b"Z\x00\x00\x00\x05"
"""ReadyForQuery, but for its last byte."""
IDLE = READY + b"I"
"""The same, outside a transaction: what was asked is committed."""

NAME = re.compile(rb"application_name\x00([^\x00]*)\x00")


@dataclass(eq=False)
class Line:
    """One client's connection, both halves of it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    name: str = ""
    """Its application_name."""
    settled: bool = False
    """It has been ready for a statement."""
    doomed: bool = False
    """The end of the answer to the next statement that commits does not arrive, and the line is
    cut."""
    dead: bool = False
    """Something was swallowed: nothing gets through any more, whatever happens elsewhere."""

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass
class Proxy:
    """`target` is (host, port) of the server for connections to come. While `silent`, bytes and new
    connections are taken and lead nowhere, and the lines that lost any stay dead."""

    target: tuple[str, int]
    port: int = 0
    silent: bool = False
    cuts: int = 0
    """Lines that were cut between commit and reply."""
    lines: set[Line] = field(default_factory=set)
    _lost: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def doom_one(self) -> None:
        """One line at random loses the answer to its next commit."""
        if lines := [line for line in self.lines if line.settled and not line.doomed]:
            random.choice(lines).doomed = True

    def cut_all(self) -> None:
        for line in list(self.lines):
            line.cut()
        for writer in list(self._lost):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            self._lost.add(writer)
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        line = Line(writer, to_server)
        self.lines.add(line)
        try:
            with suppress(OSError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._requests(line, reader))
                    both.create_task(self._answers(line, from_server))
        except* OSError:
            pass
        finally:
            line.cut()
            self.lines.discard(line)

    async def _requests(self, line: Line, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            if not line.settled and (found := NAME.search(data)):
                line.name = found[1].decode()
            if self._passes(line):
                line.server.write(data)
                await line.server.drain()
        line.cut()

    async def _answers(self, line: Line, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            line.settled = line.settled or READY in data
            if line.doomed and data.endswith(IDLE):
                self.cuts += 1
                line.cut()
                return
            if self._passes(line):
                line.client.write(data)
                await line.client.drain()
        line.cut()

    def _passes(self, line: Line) -> bool:
        line.dead = line.dead or self.silent
        return not line.dead


@asynccontextmanager
async def a_proxy(port: int, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    proxy = Proxy((host, port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut_all()
        while proxy.lines:
            await a_turn()
