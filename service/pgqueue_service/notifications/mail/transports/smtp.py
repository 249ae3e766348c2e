"""Mail by SMTP, over a few connections that are kept and used again."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import NamedTuple

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPResponse,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from pgqueue_service.notifications.mail.message import Mail, Sender, build
from pgqueue_service.notifications.mail.transports.endings import (
    Intend,
    interrupted,
    quoted,
    unannounced,
)
from pgqueue_service.notifications.mail.transports.replies import CLOSING
from pgqueue_service.notifications.mail.transports.smtp_session import Dialler, refusal
from pgqueue_service.settings import ServiceSettings

STALE_AFTER = 30.0
"""Seconds after which an idle connection is opened anew: a firewall in between may have forgotten
it without telling."""


class _Idle(NamedTuple):
    client: SMTP
    since: float


class _DiedIdle(Exception):
    """The server had left the kept connection before it heard of this mail."""


class SmtpTransport:
    """At most `smtp_connections` at once; a mail waits for its turn within the time that its job
    has."""

    name = "smtp"

    def __init__(self, settings: ServiceSettings, sender: Sender) -> None:
        self.sender = sender
        self._dialler = Dialler(settings)
        self._slots = asyncio.Semaphore(settings.smtp_connections)
        self._idle: list[_Idle] = []
        self._closed = False

    async def send(self, mail: Mail, intend: Intend = unannounced) -> str:
        message = build(mail, self.sender, datetime.now(UTC))
        async with self._slots:
            if kept := self._take():
                try:
                    return await self._hand_over(kept, mail, message, intend, kept=True)
                except _DiedIdle:
                    pass
            return await self._hand_over(
                await self._dialler.dial(), mail, message, intend, kept=False
            )

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for client, _ in idle:
            with contextlib.suppress(SMTPException, OSError):
                await client.quit(timeout=min(1.0, self._dialler.timeout))
            client.close()

    async def _hand_over(
        self, client: SMTP, mail: Mail, message: bytes, intend: Intend, *, kept: bool
    ) -> str:
        """One mail transaction (RFC 5321, 3.3). The connection is kept only when both sides know
        where they are in it."""
        where, step, usable, handed_in = self._dialler.where, "MAIL FROM", False, False
        try:
            await _say(client, f"MAIL FROM:<{self.sender.address}>")
            step = "RCPT TO"
            await _say(client, f"RCPT TO:<{mail.to}>")
            step = "DATA"
            _expect(await client.execute_command(b"DATA"), 3)
            # As late as can be: what is in doubt if we die is a mail that the server may have, and
            # not one it cannot have.
            await intend()
            if not client.is_connected:
                # It left meanwhile, and has nothing of the mail: no doubt about that.
                raise SMTPServerDisconnected("Connection lost")
            step, handed_in = "end of data", True
            reply = await _hand_in(client, message)
            usable = True
        except SMTPResponseException as error:
            if kept and step == "MAIL FROM" and error.code == CLOSING:
                raise _DiedIdle from None
            usable = step != "MAIL FROM" and await _reset(client, error.code)
            if handed_in and not 400 <= error.code < 600:
                # Neither yes nor no.
                raise interrupted(f"{where}, {step}", error, uncertain=True) from None
            raise refusal(where, step, error.code, error.message, mail.to) from None
        except (SMTPException, OSError) as error:
            if kept and step == "MAIL FROM" and isinstance(error, SMTPServerDisconnected):
                raise _DiedIdle from None
            # The server may have the mail, or part of it: another try is another attempt, with the
            # same Message-ID.
            raise interrupted(f"{where}, {step}", error, uncertain=handed_in) from error
        finally:
            if usable:
                self._keep(client)
            else:
                client.close()
        return f"smtp {reply.code} {quoted(reply.message, mail.to)}"

    def _take(self) -> SMTP | None:
        """The connection used last, when it lives: so the others rest, and what is not needed goes
        stale."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            client, since = self._idle.pop()
            if client.is_connected and now - since < STALE_AFTER:
                return client
            client.close()
        return None

    def _keep(self, client: SMTP) -> None:
        if self._closed:
            client.close()
        else:
            self._idle.append(_Idle(client, asyncio.get_running_loop().time()))


async def _say(client: SMTP, command: str) -> None:
    """A command whose addresses are known to be nothing but addresses; aiosmtplib would parse them
    once more, slowly."""
    _expect(await client.execute_command(command.encode("ascii")), 2)


async def _hand_in(client: SMTP, message: bytes) -> SMTPResponse:
    """The message itself. Its line ends are right as `build` made them; to look for wrong ones
    takes as long as all the rest."""
    if client.protocol is None:
        raise SMTPServerDisconnected("Connection lost")
    end = b".\r\n" if message.endswith(b"\r\n") else b"\r\n.\r\n"
    client.protocol.write(message.replace(b"\r\n.", b"\r\n..") + end)
    return _expect(await client.protocol.read_response(client.timeout), 2)


def _expect(response: SMTPResponse, first_digit: int) -> SMTPResponse:
    """Of a code that it does not know, a client goes by the first digit (RFC 5321, 4.2.1)."""
    if response.code // 100 != first_digit:
        raise SMTPResponseException(response.code, response.message)
    return response


async def _reset(client: SMTP, code: int) -> bool:
    """Takes back a mail that was refused half-way with that code; whether the connection can take
    the next."""
    if code == CLOSING or not 400 <= code < 600:
        return False
    try:
        await client.rset()
    except (SMTPException, OSError):
        return False
    return True
