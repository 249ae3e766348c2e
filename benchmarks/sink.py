"""A mail server that takes everything and keeps nothing, as a process of its own: `python -m
benchmarks.sink`.

Prints its port; and at SIGTERM, as JSON, how many mails came over how many connections.
"""

import asyncio
import json
import signal

GREETING = b"220 sink ESMTP\r\n"
END = b"\r\n.\r\n"
OK = b"250 OK\r\n"


class Counts:
    def __init__(self) -> None:
        self.mails = 0
        self.connections = 0


class Conversation(asyncio.Protocol):
    """As much of SMTP as a client needs to get rid of its mail."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.buffer = b""
        self.in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a socket's always is one
        self.counts.connections += 1
        self.transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            mark = END if self.in_data else b"\r\n"
            part, found, rest = self.buffer.partition(mark)
            if not found:
                return
            self.buffer = rest
            if self.in_data:
                self.in_data = False
                self.counts.mails += 1
                self.transport.write(b"250 taken\r\n")
            else:
                self._answer(part[:4].upper())

    def _answer(self, verb: bytes) -> None:
        match verb:
            case b"EHLO":
                self.transport.write(b"250-sink\r\n250-SIZE 10000000\r\n250 8BITMIME\r\n")
            case b"DATA":
                self.in_data = True
                self.transport.write(b"354 go on\r\n")
            case b"QUIT":
                self.transport.write(b"221 bye\r\n")
                self.transport.close()
            case _:
                self.transport.write(OK)


async def main() -> None:
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(counts), "127.0.0.1", 0)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    print(json.dumps(vars(counts)), flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
