"""The notification application: a task module with routes. Workers and the API load it by its name,
in PGQUEUE_MODULES."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgqueue.settings import Settings
from pgqueue_service.notifications.custom_email import CustomEmail, send_custom_email
from pgqueue_service.notifications.mail.mailer import Mailer, open_mailer
from pgqueue_service.notifications.signin import SignIn, notify_of_sign_in
from pgqueue_service.settings import service_settings

__all__ = ["CustomEmail", "SignIn", "lifespan", "notify_of_sign_in", "send_custom_email"]


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[Mailer]:
    """Open a Mailer, the `job.resources` of the handlers. Raises SettingsError when no mail can be
    sent with the settings."""
    async with open_mailer(service_settings(settings)) as mailer:
        yield mailer


def __getattr__(name: str) -> Any:
    # Only the API asks for them. A worker runs without Litestar.
    if name in ("routes", "payload_rules"):
        from pgqueue_service.notifications import http

        return getattr(http, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
