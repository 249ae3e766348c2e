"""The HTTP routes of the notification tasks, and how their payloads are read."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from pgqueue_service.api.auth import admin_token, anonymous_or_token
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import BEARER, Idempotent, refusals
from pgqueue_service.api.payload_rules import JSON, PayloadRules
from pgqueue_service.api.problems import FAILED
from pgqueue_service.api.requests import ApiRequest
from pgqueue_service.api.schemas import (
    NO_CONTROL,
    JobIdText,
    MomentText,
    Shape,
    Strict,
    said,
)
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.schemas.responses import Accepted
from pgqueue_service.notifications import custom_email, signin
from pgqueue_service.notifications.mail.message import LONGEST_ADDRESS, LONGEST_SUBJECT
from pgqueue_service.settings import ServiceSettings
from pgqueue_service.text import LONGEST_USER_ID

AddressText = Annotated[str, said(format="idn-email", maxLength=LONGEST_ADDRESS)]
ShownText = Annotated[str, said(minLength=1, pattern=r"\S")]


class SignInRequest(Shape):
    """A sign-in. An optional member that is null or empty takes its default; unknown members are
    ignored."""

    required = ("userId", "email", "name")

    user_id: (
        Annotated[str, said(minLength=1, maxLength=LONGEST_USER_ID, pattern=NO_CONTROL)] | None
    ) = None
    email: AddressText | None = None
    name: ShownText | None = None
    provider: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    timestamp: MomentText | None = None
    locale: str | None = None
    job_id: JobIdText | None = None


class EmailRequest(Strict):
    """An e-mail of an administrator. The body is text; markup in it is shown, not rendered."""

    required = ("to", "subject", "body")

    to: AddressText | None = None
    subject: (
        Annotated[str, said(minLength=1, maxLength=LONGEST_SUBJECT, pattern=NO_CONTROL)] | None
    ) = None
    body: ShownText | None = None
    job_id: JobIdText | None = None


@post(
    "/api/jobs/signin-notification",
    status_code=202,
    guards=[anonymous_or_token],
    operation_class=Idempotent,
    responses=refusals(401, 409, 413, 415, 429),
    security=[{}, *BEARER],
    tags=["jobs"],
    opt={"failure": FAILED},
)
async def sign_in(
    request: ApiRequest, data: JSONBody[SignInRequest], gateway: NamedDependency[JobGateway]
) -> Accepted:
    """Enqueue a sign-in notification e-mail."""
    posted = _posted(signin.JOB_TYPE, data, data.job_id)
    return await gateway.accept_from_anyone(request, posted, "Sign-in notification job enqueued")


@post(
    "/api/admin/send-email",
    status_code=202,
    guards=[admin_token],
    operation_class=Idempotent,
    responses=refusals(401, 403, 409, 413, 415),
    security=BEARER,
    tags=["admin"],
    opt={"failure": FAILED},
)
async def send_email(
    request: ApiRequest, data: JSONBody[EmailRequest], gateway: NamedDependency[JobGateway]
) -> Accepted:
    """Enqueue an e-mail to one address, as a job of type email.custom."""
    posted = _posted(custom_email.JOB_TYPE, data, data.job_id)
    return await gateway.accept(request, posted, "Email job enqueued successfully")


def _posted(job_type: str, data: Any, job_id: str | None) -> EnqueueRequest:
    return EnqueueRequest(type=job_type, payload=msgspec.to_builtins(data), job_id=job_id)


def _fill_sign_in(sent: JSON, settings: ServiceSettings) -> JSON:
    return signin.fill(sent, now=datetime.now(UTC), locale=settings.mail_locale)


def _sign_in_id(payload: JSON) -> str:
    return f"signin-{payload['userId']}-{int(datetime.now(UTC).timestamp() * 1000)}-{uuid4()}"


def _fill_email(sent: JSON, _: ServiceSettings) -> JSON:
    return custom_email.fill(sent)


routes = [sign_in, send_email]

payload_rules = [
    PayloadRules(
        job_type=signin.JOB_TYPE,
        members=signin.MEMBERS,
        fill=_fill_sign_in,
        make_id=_sign_in_id,
        too_many="Too many sign-in notifications. Please try again later.",
    ),
    PayloadRules(job_type=custom_email.JOB_TYPE, members=custom_email.MEMBERS, fill=_fill_email),
]
