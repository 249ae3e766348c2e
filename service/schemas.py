"""What requests look like. Answers are in answers.py."""

from typing import Annotated, Any

import msgspec

from pgqueue.client import MOST_AT_ONCE


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """Root of the shapes below."""


class SignInRequest(Shape):
    """Somebody signed in. An optional member that is null or empty takes its default; unknown members are ignored."""

    user_id: str | None = None
    email: str | None = None
    name: str | None = None
    provider: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    timestamp: str | None = None
    locale: str | None = None
    job_id: str | None = None


class EmailRequest(Shape):
    """An administrator's mail. The body is text; markup in it is shown, not rendered."""

    to: str | None = None
    subject: str | None = None
    body: str | None = None
    job_id: str | None = None


class EnqueueRequest(Shape):
    """A job of any type that the service knows."""

    type: str
    payload: Any
    job_id: str | None = None
    user_id: str | None = None
    queue: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    run_after: str | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class BulkRequest(Shape):
    """Up to 10,000 jobs, each as in POST /api/jobs."""

    jobs: list[Any]


class RetryRequest(Shape):
    """A payload given here replaces the old one, which stays in the history."""

    payload: Any = None


class RetryBatchRequest(Shape):
    """Which dead jobs go back: by id, by what they have in common, or all of them. `since` and `until` are times of death."""

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_AT_ONCE)] | None = None
    type: str | None = None
    user_id: str | None = None
    error: str | None = None
    since: str | None = None
    until: str | None = None
    all: bool = False
    dry_run: bool = False
    rate_per_second: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = 50.0
