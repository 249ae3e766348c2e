"""Mail by SendGrid's HTTP interface, version 3."""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from pgqueue.errors import Discard, Ending, Retry, SettingsError
from pgqueue_service.notifications.mail.message import Mail, Sender
from pgqueue_service.notifications.mail.transports.endings import (
    DOUBT,
    Intend,
    broken,
    forbidden,
    interrupted,
    network_ending,
    quoted,
    unannounced,
)
from pgqueue_service.notifications.mail.transports.secrecy import may_send_secret
from pgqueue_service.notifications.mail.transports.words import about_us, bare
from pgqueue_service.settings import ServiceSettings

ACCEPTED = 202
TOO_MANY = 429
_FROM_IN_BETWEEN = frozenset((408, 502, 504))
"""What a proxy answers that does not know what became of the request."""
_NOT_OURS_TO_USE = frozenset((401, 402, 403, 407))
"""The key, the account, or a proxy that wants a login."""
_READ = frozenset((400, 413, 422))
"""SendGrid looked at the mail, and refused this one."""
_FIELDS_OF_OURS = frozenset(("authorization", "from", "ip_pool_name", "reply_to"))

LONGEST_WAIT = 86_400.0
"""Seconds; a server that wants us to wait longer than a day is not believed."""

_BEFORE_ALL_CLOCKS = (
    1_000_000_000  # a reset above this is a Unix time, below it a number of seconds
)


class _Error(msgspec.Struct):
    message: str = ""
    field: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


class SendGridTransport:
    """One client with kept connections for all mails of the process. Raises SettingsError for an
    address it cannot use."""

    name = "sendgrid"

    def __init__(self, settings: ServiceSettings, sender: Sender) -> None:
        self.sender = sender
        url = usable_url(settings)
        self._where = f"sendgrid {url.host}"
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {usable_key(settings)}"},
            timeout=min(settings.mail_timeout, settings.lease / 3).total_seconds(),
        )

    async def send(self, mail: Mail, intend: Intend = unannounced) -> str:
        await intend()
        try:
            response = await self._client.post("/v3/mail/send", json=body(mail, self.sender))
        except (httpx.RequestError, OSError) as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
                # Without a connection nothing was sent.
                raise network_ending(self._where, error) from error
            raise interrupted(self._where, error, uncertain=True) from error
        if response.status_code != ACCEPTED:
            raise refusal(self._where, response, mail.to)
        message_id = quoted(response.headers.get("X-Message-Id", ""), mail.to)
        return f"sendgrid {ACCEPTED} {message_id}".rstrip()

    async def close(self) -> None:
        await self._client.aclose()


def body(mail: Mail, sender: Sender) -> dict[str, Any]:
    """What is posted. SendGrid has no idempotency key: the Message-ID is all that tells a second
    delivery from a first."""
    content = [{"type": "text/plain", "value": mail.text}]
    if mail.html is not None:
        content.append({"type": "text/html", "value": mail.html})
    return {
        "personalizations": [{"to": [{"email": mail.to}]}],
        "from": {"email": sender.address, "name": sender.name}
        if sender.name
        else {"email": sender.address},
        "subject": mail.subject,
        "content": content,
        "headers": {"Message-ID": mail.message_id, "Auto-Submitted": "auto-generated"},
        "custom_args": {"message_id": mail.message_id},
        # No remote picture and no rewritten link in a mail about a user's account.
        "tracking_settings": {
            "click_tracking": {"enable": False},
            "open_tracking": {"enable": False},
        },
    }


def refusal(where: str, response: httpx.Response, address: str) -> Ending:
    """What an answer other than 202 means for the job. Another 2xx is no acceptance either: a
    proxy's page, or a sandbox."""
    code = response.status_code
    said = f"{where}: {code} {quoted(response.text, address)}".rstrip()
    if code in _FROM_IN_BETWEEN:
        return Retry(
            said + DOUBT, after=wait_asked(code, response.headers, time.time()), uncertain=True
        )
    if code == TOO_MANY or code >= 500:
        return Retry(said, after=wait_asked(code, response.headers, time.time()))
    if code < 400 or code in _NOT_OURS_TO_USE:
        return broken(said)
    if _refuses_us(response.text, address):
        return forbidden(said)
    return Discard(said, answered=code in _READ)


def _refuses_us(text: str, address: str) -> bool:
    """Whether what is wrong is our account or our sender: each error of the answer has a message,
    and the field it is about."""
    try:
        errors = msgspec.json.decode(text, type=_Errors).errors
    except msgspec.MsgspecError:
        return about_us(bare(text, address), permanent=True)
    return any(
        (error.field or "").partition(".")[0] in _FIELDS_OF_OURS
        or about_us(bare(error.message, address), permanent=True)
        for error in errors
    )


def wait_asked(code: int, headers: httpx.Headers, now: float) -> float | None:
    """Seconds to wait: by Retry-After (RFC 9110, 10.2.3), else, with 429, by X-RateLimit-Reset.
    None: the server does not say.

    Points in time are taken against the answer's own Date, so that our clock may be wrong; `now` is
    our clock, where there is none. What is no number, lies in the past or is longer than a day is
    ignored.
    """
    now = _point_in_time(headers.get("Date", "")) or now
    asked = headers.get("Retry-After", "").strip()
    point = _point_in_time(asked)
    reset = _number(headers.get("X-RateLimit-Reset", "").strip()) if code == TOO_MANY else None
    if reset is not None and reset > _BEFORE_ALL_CLOCKS:
        reset -= now
    for seconds in (_number(asked), None if point is None else point - now, reset):
        if seconds is not None and 0 < seconds <= LONGEST_WAIT:
            return seconds
    return None


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _point_in_time(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return (
        moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    ).timestamp()  # without a zone it is GMT: RFC 9110, 5.6.7


def usable_key(settings: ServiceSettings) -> str:
    """Raises SettingsError."""
    key = settings.sendgrid_api_key or ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(["SENDGRID_API_KEY: its value is not usable"])
    return key


def usable_url(settings: ServiceSettings) -> httpx.URL:
    """Raises SettingsError."""
    try:
        url = httpx.URL(settings.sendgrid_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("https", "http") or not url.host:
        raise SettingsError(["PGQUEUE_SENDGRID_URL: not an http(s) URL"])
    if not may_send_secret(url.host, encrypted=url.scheme == "https"):
        raise SettingsError(["PGQUEUE_SENDGRID_URL: https, for the key is not sent without TLS"])
    return url
