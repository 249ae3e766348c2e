"""/healthz and /readyz of a worker, for whoever watches over the process. The API's are served by the API."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pgqueue.errors import SettingsError


@asynccontextmanager
async def health_server(port: int | None, ready: Callable[[], bool]) -> AsyncIterator[int | None]:
    """Serves on all addresses while the block runs; yields the port. /healthz is 200 as long as the event loop turns, /readyz
    503 when `ready()` is false. No port, no server. SettingsError when the port cannot be had."""
    if port is None:
        yield None
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = await reader.readuntil(b"\r\n\r\n")
                path = request.split(b" ", 2)[1] if request.count(b" ") >= 2 else b""
                status, word = _answer(path, ready)
                body = f'{{"status":"{word}"}}'.encode()
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                head += "Connection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, None, port, limit=8192)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError([f"cannot listen on port {port} for /healthz and /readyz (PGQUEUE_HEALTH_PORT): {why}"]) from None
    async with server:
        yield server.sockets[0].getsockname()[1]


def _answer(path: bytes, ready: Callable[[], bool]) -> tuple[str, str]:
    if path == b"/healthz" or (path == b"/readyz" and ready()):
        return "200 OK", "ok"
    return ("503 Service Unavailable", "unready") if path == b"/readyz" else ("404 Not Found", "not found")
