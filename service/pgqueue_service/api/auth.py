"""Authorization: bearer tokens, and what is open without one."""

import hmac
import logging
import re
from collections.abc import Mapping
from enum import IntEnum
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from pgqueue.errors import SettingsError
from pgqueue_service.api.problems import Refusal
from pgqueue_service.loopback import is_loopback
from pgqueue_service.settings import ServiceSettings

log = logging.getLogger("pgqueue_service.api.auth")

Connection = ASGIConnection[Any, Any, Any, Any]

LONGEST_PATH = 300
"""Characters of a path that are logged."""

_LOGGED = "admin action logged"

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]*)?")


class Level(IntEnum):
    """What a token opens. Each level includes the ones below it."""

    NONE = 0
    JOBS = 1
    ADMIN = 2


class Access:
    """The rules for one set of settings. Raises SettingsError when they would leave open what must
    not be."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.local = is_loopback(settings.host)
        self.wholly_open = settings.open
        self.anonymous = settings.open or not settings.api_tokens
        self._any_host = not settings.open and (not self.local or settings.allow_anonymous)
        self._origins = {origin.lower().rstrip("/") for origin in settings.cors_origins}
        self._tokens = [(_digest(token.encode()), Level.JOBS) for token in settings.api_tokens]
        self._tokens += [(_digest(token.encode()), Level.ADMIN) for token in settings.admin_tokens]
        self._highest = max((level for _, level in self._tokens), default=Level.NONE)
        self._refuse_to_start(settings)

    def _refuse_to_start(self, settings: ServiceSettings) -> None:
        if settings.open and not self.local:
            raise SettingsError(
                [f"PGQUEUE_OPEN is for development on loopback only, not on HOST={settings.host}"]
            )
        if settings.open and self._origins & {"*", "null"}:
            raise SettingsError(
                [
                    "PGQUEUE_OPEN and PGQUEUE_CORS_ORIGINS=* together let any page that a "
                    "browser on this machine shows do "
                    "everything: name the origins, or set tokens"
                ]
            )
        if self.anonymous and not self.local and not settings.allow_anonymous:
            raise SettingsError(
                [
                    f"HOST={settings.host} is open to other machines and PGQUEUE_API_TOKENS is "
                    "not set: set it, or listen on "
                    "127.0.0.1, or set PGQUEUE_ALLOW_ANONYMOUS=true to take sign-ins without a "
                    "token"
                ]
            )

    def notes(self) -> tuple[str, ...]:
        """What an operator should know when the service starts, a sentence each."""
        if self.wholly_open:
            return ("every route is open without a token, to this machine only (PGQUEUE_OPEN)",)
        notes = []
        if self.anonymous:
            reach = (
                "to all callers"
                if self._any_host
                else "to this machine, and to all callers behind a proxy on it"
            )
            notes.append(
                f"sign-ins and job states are open without a token, {reach} (PGQUEUE_API_TOKENS "
                "is not set)"
            )
        if self._highest < Level.ADMIN:
            notes.append("the admin routes are closed: PGQUEUE_ADMIN_TOKENS is not set")
        return tuple(notes)

    def demand(self, connection: Connection, level: Level) -> None:
        """Refusal 401 or 403 unless the request's token is of that level."""
        found, who = (Level.ADMIN, "open") if self.wholly_open else self._bearer(connection.scope)
        if problem := self._problem(found, level):
            log_refusal(connection.scope, problem, who)
            raise problem
        if level is Level.ADMIN:
            _log_action(connection.scope, who)

    def _problem(self, found: Level, level: Level) -> Refusal | None:
        if found >= level:
            return None
        if self._highest < level:
            name = "PGQUEUE_ADMIN_TOKENS" if level is Level.ADMIN else "PGQUEUE_API_TOKENS"
            return Refusal(403, f"This is closed: {name} is not set")
        if found is Level.NONE:
            return Refusal(401, "A valid token is required", headers={"WWW-Authenticate": "Bearer"})
        return Refusal(403, "This needs an admin token")

    def _bearer(self, scope: Mapping[str, Any]) -> tuple[Level, str]:
        """What the request's token opens, and which one it is, as the log may know it."""
        authorization = (header(scope, b"authorization") or b"").strip()
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return Level.NONE, "another scheme" if authorization else "none"
        given, found = _digest(token.strip()), Level.NONE
        for digest, level in self._tokens:
            # All of them, always: how long it takes says nothing about which one it was.
            if hmac.compare_digest(given, digest):
                found = max(found, level)
        # A fingerprint only of what is configured: a mistyped password would be guessed from its
        # own.
        return found, "unknown" if found is Level.NONE else given.hex()[:8]

    def objection(self, scope: Mapping[str, Any]) -> str | None:
        """Why a request is refused before its route is looked at; None when it is not. Where a
        route is open without a token, a page of another site must not reach it through a user's
        browser: not by the page's own Origin, and not by a host name that resolves to this
        machine."""
        if not self.anonymous:
            return None
        host = (header(scope, b"host") or b"").decode("latin-1").lower()
        if not self._any_host and not is_loopback(_hostname(host)):
            return (
                "This service is open to its own machine only: Host must be localhost or 127.0.0.1"
            )
        origin = (header(scope, b"origin") or b"").decode("latin-1").lower()
        if (
            origin
            and origin not in self._origins
            and "*" not in self._origins
            and not _same(origin, host)
        ):
            return "Pages of this Origin may not call this service: see PGQUEUE_CORS_ORIGINS"
        return None


def log_refusal(scope: Mapping[str, Any], refusal: Refusal, who: str) -> None:
    """A line in the log for every 401 and 403."""
    request = _described(scope)
    log.warning(
        "answered %d to %s %s from %s: %s (token: %s)",
        refusal.status,
        request["method"],
        request["path"],
        request["remote"],
        refusal.sentence,
        who,
        extra={"event": "api.refused", "status": refusal.status, "token": who, **request},
    )


def _log_action(scope: Mapping[str, Any], who: str) -> None:
    """A line in the log for every request of an administrator that may change something: one for
    each request."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["state"].get(_LOGGED):
        return
    scope["state"][_LOGGED] = True
    request = _described(scope)
    log.info(
        "admin action %s %s from %s (token: %s)",
        request["method"],
        request["path"],
        request["remote"],
        who,
        extra={"event": "api.admin", "token": who, **request},
    )


def _described(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The request in a log line. The path is as it was sent, with the job or the queue in it."""
    client = scope.get("client")
    parts = {name: unquote(str(value)) for name, value in (scope.get("path_params") or {}).items()}
    job_id = parts.get("jobId") or parts.get("job_id")
    return {
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "remote": client[0] if client else "unknown",
        **({"jobId": job_id[:LONGEST_PATH]} if job_id else {}),
    }


def header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The first header of that name (lower case)."""
    return next((value for key, value in scope["headers"] if key == name), None)


def _digest(token: bytes) -> bytes:
    # Equal lengths, so that not even that shows.
    return sha256(token).digest()


def _hostname(host: str) -> str:
    # Not by urlsplit, which finds localhost in "x@localhost" and in "localhost/x".
    found = _HOST.fullmatch(host)
    return found[1] if found else ""


def _same(origin: str, host: str) -> bool:
    """Whether a page of that Origin belongs to the Host: the same name and the same port, which may
    be left out when it is the scheme's own."""
    scheme, _, netloc = origin.partition("://")
    usual = {"http": ":80", "https": ":443"}.get(scheme)
    if usual is None or not _HOST.fullmatch(netloc):
        return False
    return netloc.removesuffix(usual) == host.removesuffix(usual)


def open_to_all(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard that lets every request pass."""


def anonymous_or_token(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard that demands an API token only when API tokens are set."""
    access: Access = connection.app.state.access
    if not access.anonymous:
        access.demand(connection, Level.JOBS)


def api_token(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard that demands an API token, or an admin token."""
    connection.app.state.access.demand(connection, Level.JOBS)


def admin_token(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard that demands an admin token."""
    connection.app.state.access.demand(connection, Level.ADMIN)
