"""Connections of the API: how many there may be, and how long each may let the server wait."""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from pgqueue.cli.file_limits import room_for_connections
from pgqueue_service.server.framing import Framing, Malformed
from pgqueue_service.settings import ServiceSettings

LINGER = 2.0
"""Seconds in which a caller that was refused may still read why: closed at once, its system would
throw the answer away."""

LINGERED = 1024 * 1024
"""Bytes that are read and thrown away meanwhile."""

UNREAD = 30.0
"""Seconds that an answer may lie unread."""

BACKLOG = 2048
"""Connections that may wait to be accepted, where the file limit has room for them."""

IDLE, HEAD, BODY = 0, 1, 2
"""What a connection waits for: its next request, the rest of a head, the rest of a body. In this
order they make room."""


@dataclass(frozen=True)
class Limits:
    """Seconds for a request's head and for its body; open connections; connections that may wait to
    be accepted."""

    head: float
    body: float
    connections: int
    backlog: int

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Limits":
        """For this process, whose file limit is what it is now."""
        room = room_for_connections(settings.pool_size)
        most = min(settings.http_connections, room * 3 // 4)
        return cls(
            settings.header_timeout.total_seconds(),
            settings.body_timeout.total_seconds(),
            most,
            min(BACKLOG, room - most),
        )


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol, guarded: httptools' parser where that is installed, else h11's."""
    parser: type[Any]
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as parser
    except ImportError:
        parser = H11Protocol
    return type("Guarded", (Guard, parser), {"limits": limits})


if TYPE_CHECKING:
    Parser = H11Protocol
else:
    Parser = asyncio.Protocol


class Guard(Parser):
    """Stands before either of uvicorn's two protocols. They are handed whole heads, one request at
    a time, and nothing of one that is refused. `look` is called about once a second."""

    limits: ClassVar[Limits]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._framing = Framing()
        self._since = self.loop.time()
        self._refused: int | None = None
        self._unread_since: float | None = None

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits_for(self) -> int | None:
        """IDLE, HEAD or BODY; None while a request is worked on."""
        if self._refused is not None or self._framing.in_body:
            return BODY
        if self._busy:
            return None
        return HEAD if self.cycle is None or self._framing.held else IDLE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has let the server wait the longest. When none waits, refuse
        the new one."""
        waiting = [
            one
            for one in self.connections
            if isinstance(one, Guard) and one is not self and one.waits_for is not None
        ]
        if waiting:
            min(waiting, key=lambda one: (one.waits_for, one._since)).give_way()
        else:
            self._refuse(
                503, "The service has as many connections as it can hold", "Retry-After: 1\r\n"
            )

    def give_way(self) -> None:
        """Ends now."""
        # At once and not when it is lost: more may come before that.
        self.connections.discard(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            self._refused += len(data)
            if self._refused > LINGERED:
                self.flow.pause_reading()
            return
        if self.waits_for == IDLE:
            self._since = self.loop.time()
        self._unset_keepalive_if_required()
        self._framing.feed(data)
        self._go_on()

    def _go_on(self) -> None:
        """Hands on what may be: a body, or the next request when the one before is answered."""
        while not self.transport.is_closing() and (self._framing.in_body or not self._busy):
            in_head = not self._framing.in_body
            try:
                piece = self._framing.next()
            except Malformed as error:
                self._refuse(error.status, error.sentence)
                return
            if piece is None:
                return
            if in_head:
                self._since = self.loop.time()
            super().data_received(piece)
        if self._framing.held:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._framing.in_body:
            self._since = self.loop.time()
        if self._framing.held:
            self._unset_keepalive_if_required()
            self._go_on()

    def send_400_response(self, msg: str) -> None:
        """What the parser finds that was not found before it."""
        self._refuse(400, "The request is not valid HTTP/1.1")

    def _refuse(self, status: int, sentence: str, header: str = "") -> None:
        """Answers, unless an answer is under way or there was one, and closes."""
        self._unset_keepalive_if_required()
        self._refused, self._since = 0, self.loop.time()
        if self.cycle is not None:
            begun = self.cycle.response_started and not self.cycle.response_complete
            unasked = self._framing.in_body and self.cycle.response_complete
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if begun or unasked:
                self.transport.abort()
                return
        self._framing = Framing()
        self.transport.write(_problem(status, sentence, header))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    def look(self, now: float) -> None:
        """Ends what has waited for too long. now: by the loop's clock."""
        waited = now - self._since
        if self._refused is not None:
            if waited > LINGER:
                self.transport.abort()
        elif self._unread_since is not None and now - self._unread_since > UNREAD:
            self.transport.abort()
        elif self.waits_for == HEAD and waited > self.limits.head:
            if self._framing.held:
                self._refuse(
                    408, f"The request's headers did not arrive within {self.limits.head:g} s"
                )
            else:
                self.transport.abort()
        elif self.waits_for == IDLE and waited > self.timeout_keep_alive + UNREAD:
            self.transport.abort()  # it was to be closed, and the last answer still lies unread
        elif self.waits_for == BODY and waited > self.limits.body:
            self._refuse(408, f"The request's body did not arrive within {self.limits.body:g} s")


def _problem(status: int, sentence: str, header: str) -> bytes:
    members = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": sentence,
        "error": sentence,
        "message": sentence,
    }
    body = json.dumps({"type": "about:blank", **members}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: "
        f"application/problem+json\r\n{header}"
    )
    head += (
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nX-Content-Type-Options: "
        "nosniff\r\nConnection: close\r\n"
    )
    return f"{head}\r\n".encode() + body
