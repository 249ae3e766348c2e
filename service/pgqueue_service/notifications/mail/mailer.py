"""The resources of the mail tasks: the templates and the transport."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgqueue.attempt import Job
from pgqueue.errors import Discard, SettingsError
from pgqueue_service.notifications.mail.message import Mail
from pgqueue_service.notifications.mail.render import Renderer, template_problems
from pgqueue_service.notifications.mail.transports import Transport, open_transport, wrong_settings
from pgqueue_service.settings import ServiceSettings

logger = logging.getLogger("pgqueue_service.notifications.mail")

UNCERTAIN = (
    "delivery uncertain: an earlier attempt may have sent this mail; a replay sends it (again)"
)


class Mailer:
    """Renders and sends. `transport` is open as long as the Mailer is in use."""

    def __init__(self, transport: Transport, renderer: Renderer, settings: ServiceSettings) -> None:
        self.transport = transport
        self.renderer = renderer
        self.settings = settings

    @property
    def banner(self) -> str:
        """The transport, for the first log line of a worker."""
        return f"mail by {self.transport.name}"

    async def deliver(self, mail: Mail, job: Job[Any]) -> str:
        """Send the mail of the job; log, store and return the receipt. Raises what Transport.send
        raises, and Discard for a mail that an earlier attempt may have sent, when
        PGQUEUE_DOUBTFUL_MAIL is hold."""
        if job.uncertain and self.settings.doubtful_mail == "hold":
            raise Discard(UNCERTAIN)
        receipt = job.receipt = await self.transport.send(mail, job.intend)
        logger.info(
            "Mail of job %s sent: %s",
            job.job_id,
            receipt,
            extra={
                "event": "mail.sent",
                "jobId": job.job_id,
                "transport": self.transport.name,
                "receipt": receipt,
            },
        )
        if job.uncertain:
            logger.warning(
                (
                    "Mail of job %s may have been sent before: the outcome of an earlier attempt "
                    "is unknown"
                ),
                job.job_id,
                extra={"event": "mail.doubtful", "jobId": job.job_id},
            )
        return receipt


@asynccontextmanager
async def open_mailer(settings: ServiceSettings) -> AsyncIterator[Mailer]:
    """Raises SettingsError with what is wrong with the settings of the mail."""
    if problems := [*wrong_settings(settings), *template_problems(settings)]:
        raise SettingsError(problems)
    async with open_transport(settings) as transport:
        yield Mailer(transport, Renderer(settings, transport.sender.domain), settings)
