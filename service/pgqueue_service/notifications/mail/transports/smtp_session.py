"""From a host name to an SMTP connection that takes mail: greeting, EHLO, TLS, login."""

import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
)

from pgqueue.errors import Discard, Ending, Retry
from pgqueue_service.notifications.mail.transports.endings import (
    broken,
    forbidden,
    network_ending,
    quoted,
)
from pgqueue_service.notifications.mail.transports.replies import (
    MAIL_STEPS,
    Reply,
    Subject,
    subject,
)
from pgqueue_service.notifications.mail.transports.secrecy import may_send_secret
from pgqueue_service.notifications.mail.transports.smtp_settings import Encryption, server
from pgqueue_service.settings import ServiceSettings

_UNKNOWN_METHOD = frozenset((500, 501, 502, 503, 504))
"""Answers to a command that the server does not know, or not with this argument."""

_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")

_METHODS: tuple[tuple[str, Callable[[SMTP, str, str], Awaitable[Any]]], ...] = (
    ("plain", SMTP.auth_plain),
    ("login", SMTP.auth_login),
    ("cram-md5", SMTP.auth_crammd5),
)


class Dialler:
    """Opens connections to the server of the settings. Raises SettingsError when its name or the CA
    file is not usable."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._host, self._port, self._encryption, self._tls = server(settings)
        self._user = settings.smtp_user
        self._password = settings.smtp_password or ""
        # A step may not outlast the lease: a worker that hangs in one would lose the job and not
        # know whether the mail left.
        self.timeout = min(settings.mail_timeout, settings.lease / 3).total_seconds()

    @property
    def where(self) -> str:
        return f"smtp {self._host}:{self._port}"

    async def dial(self) -> SMTP:
        """A connection that is ready for MAIL FROM. Raises Retry or DependencyDown("mail")."""
        client = SMTP(
            hostname=self._host,
            port=self._port,
            local_hostname="localhost",
            timeout=self.timeout,
            use_tls=self._encryption is Encryption.FROM_THE_START,
            start_tls=False,
            tls_context=self._tls,
        )
        step = "greeting"
        try:
            await client.connect()
            step = "EHLO"
            await _greet(client)
            if self._may_encrypt(client):
                step = "STARTTLS"
                await client.starttls()
                await _greet(client)
            step = "login"
            await self._log_in(client)
        except SMTPResponseException as error:
            client.close()
            raise refusal(self.where, step, error.code, error.message) from None
        except (
            SMTPException,
            OSError,
            ValueError,
        ) as error:  # ValueError: a challenge that is no base64, for instance
            client.close()
            raise network_ending(f"{self.where}, {step}", error) from error
        except BaseException:
            client.close()
            raise
        return client

    def _may_encrypt(self, client: SMTP) -> bool:
        if self._encryption in (Encryption.FROM_THE_START, Encryption.NEVER):
            return False
        if client.supports_extension("starttls"):
            return True
        if self._encryption is Encryption.STARTTLS:
            raise broken(
                f"{self.where}: the server offers no STARTTLS, and mail is not sent in the "
                "clear: set SMTP_SECURE=true for "
                "TLS from the first byte, or SMTP_SECURE=opportunistic where the way to the "
                "server is safe"
            )
        return False

    async def _log_in(self, client: SMTP) -> None:
        if not self._user:
            return
        if not may_send_secret(
            self._host, encrypted=client.get_transport_info("sslcontext") is not None
        ):
            raise broken(
                f"{self.where}: the password is not sent without TLS, and the server offers no "
                "STARTTLS: "
                "set SMTP_SECURE=true, or SMTP_PORT to one with STARTTLS"
            )
        offered = [
            (name, method) for name, method in _METHODS if name in client.server_auth_methods
        ]
        if not offered:
            raise broken(
                f"{self.where}: SMTP_USER is set, but the server offers no login by PLAIN, LOGIN "
                "or CRAM-MD5"
            )
        for number, (_, method) in enumerate(offered, 1):
            try:
                await method(client, self._user, self._password)
                return
            except SMTPAuthenticationError as error:
                # A refused password is not offered again in other words: that looks like guessing,
                # and locks accounts.
                if error.code not in _UNKNOWN_METHOD or number == len(offered):
                    raise


async def _greet(client: SMTP) -> None:
    """EHLO; HELO where the server does not know it (RFC 5321, 3.2)."""
    try:
        await client.ehlo(hostname=own_name(client))
    except SMTPHeloError as error:
        if error.code not in _UNKNOWN_METHOD:
            raise
        await client.helo(hostname=own_name(client))


def own_name(client: SMTP) -> str:
    """What we call ourselves: our full host name, or the address we speak from (RFC 5321,
    4.1.3)."""
    name = socket.gethostname()
    if _HOST_NAME.fullmatch(name):
        return name
    address = str(client.get_transport_info("sockname")[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def refusal(where: str, step: str, code: int, text: str, address: str = "") -> Ending:
    """What a server's answer other than yes means for the job."""
    said = f"{where}, {step}: {code} {quoted(text, address)}".rstrip()
    reply = Reply(code, text, address)
    match subject(step, reply):
        case Subject.US:
            return forbidden(said) if step in MAIL_STEPS else broken(said)
        case Subject.MAIL:
            return Discard(said, answered=True) if reply.permanent else Retry(said, answered=True)
    return broken(said) if reply.permanent else Retry(said)
