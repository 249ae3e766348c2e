"""The tasks of the notification service, as a worker loads them by the name of this module."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgqueue.settings import Settings
from pgqueue_service.notifications.custom_email import CustomEmail, send_custom_email
from pgqueue_service.notifications.mail.mailer import Mailer, open_mailer
from pgqueue_service.notifications.signin import SignIn, notify_of_sign_in
from pgqueue_service.settings import service_settings

__all__ = ["CustomEmail", "SignIn", "lifespan", "notify_of_sign_in", "send_custom_email"]


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[Mailer]:
    """What the handlers find in `job.resources`: a Mailer. Raises SettingsError when no mail can be
    sent with the settings."""
    async with open_mailer(service_settings(settings)) as mailer:
        yield mailer
