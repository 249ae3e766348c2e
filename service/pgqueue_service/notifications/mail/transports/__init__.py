"""The transports of mails: the log, SMTP, SendGrid. Each reports a failed attempt with the
exceptions of pgqueue.errors."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from pgqueue.errors import SettingsError
from pgqueue_service.notifications.mail.message import Mail, Sender
from pgqueue_service.notifications.mail.transports.endings import Intend, unannounced
from pgqueue_service.notifications.mail.transports.log import LogTransport
from pgqueue_service.notifications.mail.transports.smtp import SmtpTransport
from pgqueue_service.notifications.mail.transports.smtp_settings import server
from pgqueue_service.settings import ServiceSettings, transport_problems

LOG_SENDER = "no-reply@localhost.invalid"
"""Stands in the mails of log-only mode where the settings name no sender."""


class Transport(Protocol):
    """Sends mails, many at a time."""

    @property
    def name(self) -> str:
        """As in MAIL_TRANSPORT."""

    @property
    def sender(self) -> Sender:
        """The sender of the mails."""

    async def send(self, mail: Mail, intend: Intend = unannounced) -> str:
        """Send it and return a receipt that names the transport and no address. Awaits `intend`
        right before the step after which the other side may have the mail.

        Raises Retry when it may go through later, Discard when it never will,
        DependencyDown("mail") when the transport is broken and the mail is not to blame.
        """

    async def close(self) -> None:
        """Close idle connections; a mail that is being sent keeps its connection until it is
        sent."""


@asynccontextmanager
async def open_transport(settings: ServiceSettings) -> AsyncIterator[Transport]:
    """The transport that the settings name; log when they name none. Raises SettingsError with all
    that is wrong with them."""
    if problems := wrong_settings(settings):
        raise SettingsError(problems)
    transport = _transport(settings, sender(settings))
    try:
        yield transport
    finally:
        await transport.close()


def wrong_settings(settings: ServiceSettings) -> list[str]:
    """All that keeps these settings from sending a mail, a sentence each; found without asking the
    server."""
    problems = transport_problems(settings)
    checks: list[Callable[[ServiceSettings], Any]] = [sender]
    if settings.mail_transport == "smtp" and settings.smtp_host:
        checks.append(server)
    if settings.mail_transport == "sendgrid":
        from pgqueue_service.notifications.mail.transports import sendgrid

        checks += [sendgrid.usable_key, sendgrid.usable_url]
    for check in checks:
        try:
            check(settings)
        except SettingsError as error:
            problems += error.problems
    return problems


def sender(settings: ServiceSettings) -> Sender:
    """Who the mails come from. Raises SettingsError."""
    mine = settings.sendgrid_from_email if settings.mail_transport == "sendgrid" else None
    try:
        return Sender.parse(mine or settings.mail_from or LOG_SENDER)
    except ValueError as error:
        raise SettingsError(
            [f"{'SENDGRID_FROM_EMAIL' if mine else 'MAIL_FROM'}: {error}"]
        ) from None


def _transport(settings: ServiceSettings, sender: Sender) -> Transport:
    match settings.mail_transport:
        case "smtp":
            return SmtpTransport(settings, sender)
        case "sendgrid":
            # Only here, for httpx is a sixth of the start of every process that does without it.
            from pgqueue_service.notifications.mail.transports.sendgrid import SendGridTransport

            return SendGridTransport(settings, sender)
    return LogTransport(sender)
