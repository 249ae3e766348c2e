"""/healthz and /readyz of a worker, for probes. The API serves its own."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from pgqueue.errors import SettingsError

MAX_REQUEST_BYTES = 8 * 1024
"""The longest request."""

MAX_CONNECTIONS = 64
"""Open connections. A new one closes the oldest. As many more may wait to be accepted."""

UNREAD_ANSWER_SECONDS = 2.0
"""A caller that has not read its answer after this time is disconnected."""

Ready = Callable[[], bool]


@asynccontextmanager
async def health_server(
    port: int | None, ready: Ready, deadline: float = 10.0
) -> AsyncIterator[int | None]:
    """Serve on all addresses while the block runs; yields the port, or None without one.

    /healthz is 200 while the event loop runs, /readyz is 503 while `ready()` is false. `deadline`
    is the time in seconds for a request to arrive. Raises SettingsError when the port is taken."""
    if port is None:
        yield None
        return
    loop = asyncio.get_running_loop()
    callers: dict[Caller, None] = {}
    try:
        server = await loop.create_server(
            lambda: Caller(callers, ready, deadline), None, port, backlog=MAX_CONNECTIONS
        )
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(
            [f"cannot listen on port {port} for /healthz and /readyz (PGQUEUE_HEALTH_PORT): {why}"]
        ) from None
    async with server:
        try:
            # With port 0, IPv4 and IPv6 get different ports.
            yield min(server.sockets, key=lambda one: one.family != socket.AF_INET).getsockname()[1]
        finally:
            for caller in tuple(callers):
                caller.end()


class Caller(asyncio.Protocol):
    """One connection: one request, one answer, then it is closed. `callers` has the open
    connections, the oldest first."""

    def __init__(self, callers: "dict[Caller, None]", ready: Ready, deadline: float) -> None:
        self._callers = callers
        self._ready = ready
        self._deadline = deadline
        self._asked = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._deadline, self.end)
        if len(self._callers) >= MAX_CONNECTIONS:
            next(iter(self._callers)).end()
        self._callers[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._callers.pop(self, None)

    def end(self) -> None:
        self._callers.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._asked += data[: MAX_REQUEST_BYTES + 1]
        if len(self._asked) > MAX_REQUEST_BYTES:
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
        # The connection stays open until the caller has read the answer: after an early close the
        # caller's system drops an answer that it has not read.
        self._transport.write_eof()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(UNREAD_ANSWER_SECONDS, self.end)


def _answer(path: bytes, ready: Ready) -> tuple[str, str]:
    if path == b"/healthz" or (path == b"/readyz" and ready()):
        return "200 OK", "ok"
    return (
        ("503 Service Unavailable", "unready")
        if path == b"/readyz"
        else ("404 Not Found", "not found")
    )
