"""HTTP callers as a process of its own: `python -m benchmarks.callers PORT CONNECTIONS REQUESTS`.
Prints one line of JSON.

Each connection is kept and posts one sign-in after another. Written on bare sockets: a client
library would take as much time as the server that is measured.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.run import percentile


def sign_in(number: int) -> bytes:
    """Every one of another user, so that no limit is reached; and with an id of the caller's, as a
    careful one sends."""
    body = json.dumps(
        {
            "userId": f"user-{number:08}",
            "email": f"user{number}@example.com",
            "name": "Test User",
            "provider": "github",
            "ipAddress": "192.168.1.100",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
            "jobId": f"sign-in-{number:08}",
        }
    ).encode()
    head = [
        "POST /api/jobs/signin-notification HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Caller(asyncio.Protocol):
    """One connection. Takes the next request as soon as the last one is answered."""

    def __init__(self, requests: Iterator[bytes], waits: list[float], done: asyncio.Event) -> None:
        self.requests = requests
        self.waits = waits
        self.done = done
        self.buffer = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a socket's always is one
        self.next()

    def next(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.done.set()
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self.buffer = b""
        if not head.startswith(b"HTTP/1.1 202"):
            sys.exit(f"refused: {head.decode()} {body.decode()}")
        self.waits.append(time.perf_counter() - self.began)
        self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.is_set():
            sys.exit(f"the server closed a connection: {error}")


async def call(port: int, connections: int, requests: int, first: int) -> dict[str, float]:
    waits: list[float] = []
    supply = iter([sign_in(number) for number in range(first, first + requests)])
    loop = asyncio.get_running_loop()
    events = [asyncio.Event() for _ in range(connections)]
    began = time.perf_counter()
    for event in events:
        await loop.create_connection(partial(Caller, supply, waits, event), "127.0.0.1", port)
    await asyncio.gather(*(event.wait() for event in events))
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "per_second": len(waits) / seconds,
        "p50_ms": 1000 * percentile(waits, 50),
        "p99_ms": 1000 * percentile(waits, 99),
    }


async def main() -> None:
    port, connections, requests = map(int, sys.argv[1:4])
    await call(port, connections, max(connections, requests // 10), 50_000_000)
    print(json.dumps(await call(port, connections, requests, 1)))


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
