"""Who may do what: bearer tokens, and what is open without one."""

import hmac
import re
from collections.abc import Mapping
from enum import IntEnum
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from litestar import Request

from pgqueue.errors import SettingsError
from pgqueue.settings import Settings
from service.hosts import is_loopback
from service.problems import Refusal
from service.requests import header

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]*)?")


class Level(IntEnum):
    """What a token opens. Each level opens what is below it."""

    NONE = 0
    JOBS = 1
    ADMIN = 2


class Access:
    """The rules for one set of settings. Raises SettingsError when they would leave open what must not be."""

    def __init__(self, settings: Settings) -> None:
        self.local = is_loopback(settings.host)
        self.wholly_open = settings.open
        self.anonymous = settings.open or not settings.api_tokens
        self._any_host = not settings.open and (not self.local or settings.allow_anonymous)
        self._origins = {origin.lower() for origin in settings.cors_origins}
        self._tokens = [(_digest(token.encode()), Level.JOBS) for token in settings.api_tokens]
        self._tokens += [(_digest(token.encode()), Level.ADMIN) for token in settings.admin_tokens]
        self._highest = max((level for _, level in self._tokens), default=Level.NONE)
        self._refuse_to_start(settings)

    def _refuse_to_start(self, settings: Settings) -> None:
        if settings.open and not self.local:
            raise SettingsError([f"PGQUEUE_OPEN is for development on loopback only, not on HOST={settings.host}"])
        if self.anonymous and not self.local and not settings.allow_anonymous:
            raise SettingsError(
                [
                    f"HOST={settings.host} is open to other machines and PGQUEUE_API_TOKENS is not set: set it, or listen on "
                    "127.0.0.1, or say PGQUEUE_ALLOW_ANONYMOUS=true to take sign-ins from anybody"
                ]
            )

    def notes(self) -> tuple[str, ...]:
        """What an operator should know when the service starts."""
        if self.wholly_open:
            return ("every route is open without a token, to this machine only (PGQUEUE_OPEN)",)
        notes = []
        if self.anonymous:
            reach = "to everybody" if self._any_host else "to this machine, and to everybody behind a proxy on it"
            notes.append(f"sign-ins and job states are open without a token, {reach} (PGQUEUE_API_TOKENS is not set)")
        if self._highest < Level.ADMIN:
            notes.append("the admin routes are closed: PGQUEUE_ADMIN_TOKENS is not set")
        return tuple(notes)

    def demand(self, request: Request[Any, Any, Any], level: Level) -> None:
        """Refusal 401 or 403 unless the request's token is of that level."""
        if self.wholly_open:
            return
        if self._highest < level:
            name = "PGQUEUE_ADMIN_TOKENS" if level is Level.ADMIN else "PGQUEUE_API_TOKENS"
            raise Refusal(403, f"This is closed: {name} is not set")
        found = self._level(header(request.scope, b"authorization"))
        if found is Level.NONE:
            raise Refusal(401, "A valid token is required", headers={"WWW-Authenticate": "Bearer"})
        if found < level:
            raise Refusal(403, "This needs an admin token")

    def _level(self, authorization: bytes | None) -> Level:
        scheme, _, token = (authorization or b"").strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return Level.NONE
        given, found = _digest(token.strip()), Level.NONE
        for digest, level in self._tokens:
            # All of them, always: how long it takes says nothing about which one it was.
            if hmac.compare_digest(given, digest):
                found = max(found, level)
        return found

    def objection(self, scope: Mapping[str, Any]) -> str | None:
        """Why a request may not come in at all. Where something is open without a token, a page of another site must not reach
        it through somebody's browser: not by its own Origin, and not by a name that it lets point to this machine."""
        if not self.anonymous:
            return None
        host = (header(scope, b"host") or b"").decode("latin-1").lower()
        if not self._any_host and not is_loopback(_hostname(host)):
            return "This service is open to its own machine only: Host must be localhost or 127.0.0.1"
        origin = (header(scope, b"origin") or b"").decode("latin-1").lower()
        if origin and origin not in self._origins and "*" not in self._origins and _netloc(origin) != host:
            return "Pages of this Origin may not call this service: see PGQUEUE_CORS_ORIGINS"
        return None


def _digest(token: bytes) -> bytes:
    # Equal lengths, so that not even that shows.
    return sha256(token).digest()


def _hostname(host: str) -> str:
    # Not by urlsplit, which finds localhost in "x@localhost" and in "localhost/x".
    found = _HOST.fullmatch(host)
    return found[1] if found else ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def anonymous_or_token(request: Request[Any, Any, Any]) -> None:
    """Before the two routes that are open while no API tokens are set; then a token is not even looked at."""
    access: Access = request.app.state.access
    if not access.anonymous:
        access.demand(request, Level.JOBS)


async def token(request: Request[Any, Any, Any]) -> None:
    """Before the other job routes."""
    request.app.state.access.demand(request, Level.JOBS)


async def admin_token(request: Request[Any, Any, Any]) -> None:
    """Before the admin routes."""
    request.app.state.access.demand(request, Level.ADMIN)
