"""/healthz and /readyz of a worker, for probes. The API serves its own."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from pgqueue.errors import SettingsError

HEAD = 8 * 1024
"""The longest request in bytes."""

MOST = 64
"""Connections at once; the oldest makes room for a new one. As many may wait to be accepted."""

LINGER = 2.0
"""Seconds that an answer may lie unread."""

Ready = Callable[[], bool]


@asynccontextmanager
async def health_server(
    port: int | None, ready: Ready, deadlines: float = 10.0
) -> AsyncIterator[int | None]:
    """Serves on all addresses while the block runs; yields the port. /healthz is 200 as long as the
    event loop turns, /readyz 503 when `ready()` is false. No port, no server. patience: seconds for
    a request to arrive. SettingsError when the port cannot be had."""
    if port is None:
        yield None
        return
    loop = asyncio.get_running_loop()
    callers: dict[Caller, None] = {}
    try:
        server = await loop.create_server(
            lambda: Caller(callers, ready, deadlines), None, port, backlog=MOST
        )
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(
            [f"cannot listen on port {port} for /healthz and /readyz (PGQUEUE_HEALTH_PORT): {why}"]
        ) from None
    async with server:
        try:
            # Where any free one is taken, IPv4 and IPv6 get different ones.
            yield min(server.sockets, key=lambda one: one.family != socket.AF_INET).getsockname()[1]
        finally:
            for caller in tuple(callers):
                caller.end()


class Caller(asyncio.Protocol):
    """One connection: one request, one answer, and the end. Among `callers`, the oldest first,
    while it is open."""

    def __init__(self, callers: "dict[Caller, None]", ready: Ready, deadlines: float) -> None:
        self._callers = callers
        self._ready = ready
        self._patience = deadlines
        self._asked = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._alarm = asyncio.get_running_loop().call_later(self._patience, self.end)
        if len(self._callers) >= MOST:
            next(iter(self._callers)).end()
        self._callers[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.cancel()
        self._callers.pop(self, None)

    def end(self) -> None:
        self._callers.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._asked += data[: HEAD + 1]
        if len(self._asked) > HEAD:
            self._answer("431 Request Header Fields Too Large", "too long")
            self._transport.pause_reading()
        elif b"\r\n\r\n" in self._asked:
            parts = bytes(self._asked).split(b" ", 2)
            self._answer(*_answer(parts[1] if len(parts) > 2 else b"", self._ready))

    def _answer(self, status: str, word: str) -> None:
        self._answered = True
        self._asked.clear()
        body = f'{{"status":"{word}"}}'
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: "
            f"{len(body)}\r\nConnection: close\r\n"
        )
        self._transport.write(f"{head}\r\n{body}".encode())
        # Closed only when the caller has read it: a system that is still sent something throws the
        # answer away.
        self._transport.write_eof()
        self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(LINGER, self.end)


def _answer(path: bytes, ready: Ready) -> tuple[str, str]:
    if path == b"/healthz" or (path == b"/readyz" and ready()):
        return "200 OK", "ok"
    return (
        ("503 Service Unavailable", "unready")
        if path == b"/readyz"
        else ("404 Not Found", "not found")
    )
