"""What every request passes first and every answer last: the path as it was sent, the time, Host
and Origin, headers of safety."""

import time
from urllib.parse import quote

import msgspec
from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

from pgqueue_service.api.auth import Access, log_refusal
from pgqueue_service.api.problems import MEDIA_TYPE, Refusal

ARRIVED = "arrived"
"""The member of the scope's state that says when a request had arrived, by the monotonic clock."""

_ONCE = frozenset(
    (
        b"host authorization content-type content-length transfer-encoding content-encoding "
        b"idempotency-key origin"
    ).split()
)
"""Headers of which a proxy may read the first and we the last, or the other way round."""

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_UNLESS_SET = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Middleware:
    """An ASGI application around the framework's.

    Servers decode the path before they hand it on, and `%2F` in a job id becomes a slash. Here it
    is taken as it was sent; the handlers decode the one segment that they read.
    """

    def __init__(self, inside: ASGIApp, access: Access) -> None:
        self._inside = inside
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inside(scope, receive, send)
            return
        raw = scope.get("raw_path")
        scope["path"] = raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"])

        state = scope["state"]
        state[ARRIVED] = time.monotonic()

        async def receive_whole() -> ReceiveMessage:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                # How long the caller takes to send its body is its own affair.
                state[ARRIVED] = time.monotonic()
            return message

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                message["headers"] = [
                    *headers,
                    *_ALWAYS,
                    *(pair for pair in _UNLESS_SET if pair[0] not in names),
                ]
            await send(message)

        if name := _doubled(scope):
            refusal = Refusal(
                400, f"The header {name.title()} is there twice, and which one counts is not known"
            )
            await _refuse(refusal)(scope, receive, send_safely)
        elif sentence := self._access.objection(scope):
            refused = Refusal(403, sentence)
            log_refusal(scope, refused, "not looked at")
            await _refuse(refused)(scope, receive, send_safely)
        else:
            await self._inside(scope, receive_whole, send_safely)


def _doubled(scope: Scope) -> str | None:
    seen = set()
    for name, _ in scope["headers"]:
        if name in _ONCE:
            if name in seen:
                return name.decode()
            seen.add(name)
    return None


def _refuse(refusal: Refusal) -> ASGIResponse:
    body = msgspec.json.encode(refusal.problem())
    return ASGIResponse(body=body, status_code=refusal.status, media_type=MEDIA_TYPE)
