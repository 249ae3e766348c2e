"""What requests look like. Answers are in answers.py.

What decoding does not check stands in the description only (`said`): the sentences for it are made
where the rule is, in jobs/.
"""

from typing import Annotated, Any

import msgspec

from pgqueue.client import MOST_AT_ONCE
from pgqueue_service.notifications import signin
from pgqueue_service.notifications.mail.message import LONGEST_ADDRESS, LONGEST_SUBJECT

LONGEST_ID = 255
LONGEST_NAME = 255

NO_CONTROL = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
NO_NUL = r"^[^\u0000]*$"
MOMENT = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt "
    r"][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$"
)
"""RFC 3339, or nothing."""
DURATION = r"^(\s*[0-9]+([.][0-9]+)?\s*(ms|s|m|h|d|)\s*)?$"
"""As pgqueue.durations takes it, or nothing."""


def said(**schema: Any) -> msgspec.Meta:
    """Words of JSON Schema for the description."""
    return msgspec.Meta(extra_json_schema=schema)


JobIdText = Annotated[str, said(maxLength=LONGEST_ID, pattern=NO_CONTROL)]
UserIdText = Annotated[str, said(maxLength=signin.LONGEST_USER_ID, pattern=NO_CONTROL)]
QueueText = Annotated[str, said(maxLength=LONGEST_NAME, pattern=NO_CONTROL)]
AddressText = Annotated[str, said(format="idn-email", maxLength=LONGEST_ADDRESS)]
ShownText = Annotated[str, said(minLength=1, pattern=r"\S")]
MomentText = Annotated[str, said(pattern=MOMENT, examples=["2026-11-23T09:30:00Z"])]
DelayText = Annotated[str, said(pattern=DURATION, examples=["10m"])]
FilterText = Annotated[str, said(pattern=NO_NUL)]


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """Root of the shapes below."""


class Strict(Shape, forbid_unknown_fields=True):
    """Root of those that take no members but their own: a name that was misspelt is no wish that is
    ignored."""


class SignInRequest(Shape):
    """Somebody signed in. An optional member that is null or empty takes its default; unknown
    members are ignored."""

    user_id: (
        Annotated[str, said(minLength=1, maxLength=signin.LONGEST_USER_ID, pattern=NO_CONTROL)]
        | None
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
    """An administrator's mail. The body is text; markup in it is shown, not rendered."""

    to: AddressText | None = None
    subject: (
        Annotated[str, said(minLength=1, maxLength=LONGEST_SUBJECT, pattern=NO_CONTROL)] | None
    ) = None
    body: ShownText | None = None
    job_id: JobIdText | None = None


class EnqueueRequest(Strict):
    """A job of any type that the service knows. `delay` is in seconds, or a text such as "10m"; or
    `runAfter`, not both."""

    type: Annotated[str, said(minLength=1, maxLength=LONGEST_NAME)]
    payload: Any
    job_id: JobIdText | None = None
    user_id: UserIdText | None = None
    queue: QueueText | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    run_after: MomentText | None = None
    delay: DelayText | int | float | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


_A_JOB = msgspec.json.schema(EnqueueRequest)["$defs"]["EnqueueRequest"]


class BulkRequest(Strict):
    """Up to 10,000 jobs, each as in POST /api/jobs."""

    jobs: Annotated[list[Any], said(items=_A_JOB, minItems=1, maxItems=MOST_AT_ONCE)]


class RetryRequest(Strict):
    """A payload given here replaces the old one, which stays in the history."""

    payload: Any = None


class RetryBatchRequest(Strict):
    """Which dead jobs go back: by id, by what they have in common, or all of them. `since` and
    `until` are times of death."""

    ids: Annotated[list[FilterText], msgspec.Meta(min_length=1, max_length=MOST_AT_ONCE)] | None = (
        None
    )
    type: FilterText | None = None
    user_id: FilterText | None = None
    error: FilterText | None = None
    since: MomentText | None = None
    until: MomentText | None = None
    all: bool = False
    dry_run: bool = False
    rate_per_second: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = 50.0
