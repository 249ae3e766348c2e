"""An administrator's own mail to one address."""

from typing import Any

import msgspec

from pgqueue import Job, task
from pgqueue_service.notifications.mail.mailer import Mailer
from pgqueue_service.notifications.mail.message import LONGEST_SUBJECT, valid_address
from pgqueue_service.notifications.members import require, require_text
from pgqueue_service.text import identifying, paragraphs

JOB_TYPE = "email.custom"
REQUIRED = MEMBERS = ("to", "subject", "body")


class CustomEmail(msgspec.Struct, frozen=True, kw_only=True):
    """The payload. The body is text; markup in it is shown, not rendered. Raises ValueError with a
    sentence for an API user."""

    to: str
    subject: str
    body: str

    def __post_init__(self) -> None:
        body = paragraphs(self.body)
        require({"to": self.to, "subject": self.subject.strip(), "body": body.strip()}, REQUIRED)
        identifying("subject", self.subject, LONGEST_SUBJECT)
        msgspec.structs.force_setattr(self, "to", valid_address(self.to))
        msgspec.structs.force_setattr(self, "body", body)


def fill(sent: dict[str, Any]) -> dict[str, Any]:
    """What the server changes in the payload that a caller sent. Raises ValueError with a sentence
    for the caller."""
    require(sent, REQUIRED)
    require_text(sent, MEMBERS)
    stored = msgspec.structs.asdict(CustomEmail(**{member: sent[member] for member in MEMBERS}))
    return {member: value for member, value in stored.items() if sent[member] != value}


@task(JOB_TYPE, admin=True, depends_on="mail", timeout=60)
async def send_custom_email(job: Job[CustomEmail]) -> None:
    """Sends it. Every attempt sends the same Message-ID."""
    mailer: Mailer = job.resources
    message = job.payload
    mail = mailer.renderer.custom(
        job_id=job.job_id, to=message.to, subject=message.subject, body=message.body
    )
    await mailer.deliver(mail, job)
