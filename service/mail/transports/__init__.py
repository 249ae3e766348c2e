"""The ways out for a mail: to the log, by SMTP, by SendGrid. Each ends a failed attempt in the words of pgqueue.errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from pgqueue.errors import SettingsError
from pgqueue.settings import Settings, transport_problems
from service.mail.message import Mail, Sender
from service.mail.transports.endings import Intend, unannounced
from service.mail.transports.log import LogTransport
from service.mail.transports.sendgrid import SendGridTransport
from service.mail.transports.smtp import SmtpTransport

LOG_SENDER = "no-reply@localhost.invalid"
"""Stands in the mails of log-only mode where the settings name no sender."""


class Transport(Protocol):
    """Sends mails, many at a time."""

    @property
    def name(self) -> str:
        """As in MAIL_TRANSPORT."""

    @property
    def sender(self) -> Sender:
        """Who the mails come from."""

    async def send(self, mail: Mail, intend: Intend = unannounced) -> str:
        """Sends it and answers a receipt that names the transport and no address. Awaits `intend` right before the step after
        which somebody else may have the mail.

        Raises Retry when it may go through later, Discard when it never will, DependencyDown("mail") when the transport is
        broken and the mail is not to blame.
        """

    async def close(self) -> None:
        """Ends what is idle; a mail under way keeps its connection to its end."""


@asynccontextmanager
async def open_transport(settings: Settings) -> AsyncIterator[Transport]:
    """The transport that the settings name; log when they name none. Raises SettingsError with all that is wrong with them."""
    transport = _transport(settings)
    try:
        yield transport
    finally:
        await transport.close()


def _transport(settings: Settings) -> Transport:
    if problems := transport_problems(settings):
        raise SettingsError(problems)
    match settings.mail_transport:
        case "smtp":
            return SmtpTransport(settings, _sender("MAIL_FROM", settings.mail_from))
        case "sendgrid":
            named = "SENDGRID_FROM_EMAIL" if settings.sendgrid_from_email else "MAIL_FROM"
            return SendGridTransport(settings, _sender(named, settings.sendgrid_from_email or settings.mail_from))
    return LogTransport(_sender("MAIL_FROM", settings.mail_from))


def _sender(setting: str, text: str | None) -> Sender:
    try:
        return Sender.parse(text or LOG_SENDER)
    except ValueError as error:
        raise SettingsError([f"{setting}: {error}"]) from None
