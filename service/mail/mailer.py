"""What the mail tasks are given: the templates and one way out."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgqueue.job import Job
from pgqueue.settings import Settings
from service.mail.message import Mail
from service.mail.render import Renderer
from service.mail.transports import Transport, open_transport

logger = logging.getLogger("service.mail")


class Mailer:
    """Renders and sends. `transport` is open as long as the Mailer is in use."""

    def __init__(self, transport: Transport, renderer: Renderer, settings: Settings) -> None:
        self.transport = transport
        self.renderer = renderer
        self.settings = settings

    @property
    def banner(self) -> str:
        """For the line with which the worker starts."""
        return f"mail by {self.transport.name}"

    async def deliver(self, mail: Mail, job: Job[Any]) -> str:
        """Sends the job's mail, and logs and answers the receipt. Raises what Transport.send raises."""
        receipt = await self.transport.send(mail)
        logger.info(
            "Mail of job %s sent: %s",
            job.job_id,
            receipt,
            extra={"event": "mail.sent", "jobId": job.job_id, "transport": self.transport.name, "receipt": receipt},
        )
        return receipt


@asynccontextmanager
async def open_mailer(settings: Settings) -> AsyncIterator[Mailer]:
    """Raises SettingsError with what is wrong with the settings of the mail."""
    async with open_transport(settings) as transport:
        yield Mailer(transport, Renderer(settings, transport.sender.domain), settings)
