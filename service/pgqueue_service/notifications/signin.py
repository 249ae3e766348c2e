"""The sign-in notification: one e-mail to a user who has signed in."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from pgqueue import Job, Limit, task
from pgqueue.settings import Settings
from pgqueue_service.notifications.mail.mailer import Mailer
from pgqueue_service.notifications.mail.message import valid_address
from pgqueue_service.notifications.members import require, require_text
from pgqueue_service.settings import service_settings
from pgqueue_service.text import identifying, shown
from pgqueue_service.times import moment, written

JOB_TYPE = "user.signin.notification"
REQUIRED = ("userId", "email", "name")
MEMBERS = (*REQUIRED, "provider", "ipAddress", "userAgent", "timestamp", "locale")

LONGEST_USER_ID = 190
LONGEST_NAME = 200
LONGEST_USER_AGENT = 512
LONGEST_OTHER = 100


class SignIn(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The payload, in JSON with the members of MEMBERS. Optional members that are null or empty
    take their defaults.

    `timestamp` is RFC 3339 text; without it the job's creation counts. Raises ValueError with a
    sentence for an API user.
    """

    user_id: str
    email: str
    name: str
    provider: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    timestamp: str | None = None
    locale: str | None = None

    def __post_init__(self) -> None:
        cleaned: dict[str, Any] = {
            "email": self.email and valid_address(self.email),
            "name": shown(self.name, LONGEST_NAME),
            "provider": shown(self.provider or "", LONGEST_OTHER) or "unknown",
            "ip_address": shown(self.ip_address or "", LONGEST_OTHER) or "0.0.0.0",  # noqa: S104 - the old service's "unknown"
            "user_agent": shown(self.user_agent or "", LONGEST_USER_AGENT) or "Unknown",
            "timestamp": self.timestamp or None,
            "locale": shown(self.locale or "", LONGEST_OTHER) or None,
        }
        require(
            {"userId": self.user_id, "email": self.email, "name": cleaned["name"].strip()}, REQUIRED
        )
        identifying("userId", self.user_id, LONGEST_USER_ID)
        if cleaned["timestamp"]:
            moment(cleaned["timestamp"])
        for name, value in cleaned.items():
            force_setattr(self, name, value)

    def happened_at(self, created_at: datetime) -> datetime:
        """When the sign-in was: an aware datetime."""
        return moment(self.timestamp) if self.timestamp else created_at


# Found out once: it takes 60 us.
_FIELDS = msgspec.structs.fields(SignIn)


def fill(sent: dict[str, Any], *, now: datetime, locale: str = "mn") -> dict[str, Any]:
    """What the server adds to or changes in the payload that a caller sent: defaults, and what was
    cut or cleaned.

    Members that this job type does not know are left alone. `now` stands for a timestamp that was
    not sent, `locale` for a language (MAIL_LOCALE). Raises ValueError with a sentence for the
    caller.
    """
    require(sent, REQUIRED)
    require_text(sent, MEMBERS)
    given: dict[str, Any] = {field.name: sent.get(field.encode_name) for field in _FIELDS}
    event = SignIn(**given)
    stored = {field.encode_name: getattr(event, field.name) for field in _FIELDS}
    stored["timestamp"] = stored["timestamp"] or written(now)
    stored["locale"] = stored["locale"] or locale
    return {
        member: value
        for member, value in stored.items()
        if member not in sent or sent[member] != value
    }


def signin_limit(settings: Settings) -> Limit:
    """PGQUEUE_SIGNIN_LIMIT."""
    count, window = service_settings(settings).signin_limit
    return Limit(count, per=window)


@task(
    JOB_TYPE,
    rate_limit=signin_limit,
    user_from="userId",
    depends_on="mail",
    timeout=60,
)
async def notify_of_sign_in(job: Job[SignIn]) -> None:
    """Send the e-mail. Every attempt sends the same Message-ID."""
    mailer: Mailer = job.resources
    event = job.payload
    mail = mailer.renderer.sign_in(
        job_id=job.job_id,
        name=event.name,
        email=event.email,
        provider=event.provider or "",
        ip_address=event.ip_address or "",
        user_agent=event.user_agent or "",
        moment=event.happened_at(job.created_at),
        locale=event.locale,
    )
    await mailer.deliver(mail, job)
