"""The part of the dead-letter queue that a request selects: filters, pages, and batches to
replay."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from uuid import UUID

from pgqueue.client import MOST_AT_ONCE
from pgqueue.job import DeadFilter, JobView
from pgqueue_service.api.array_body import ArrayBody
from pgqueue_service.api.deadlines import Turns
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.schemas.requests import RetryBatchRequest
from pgqueue_service.api.schemas.responses import DeadJob, DeadPage
from pgqueue_service.times import moment

PAGE = 100
"""The most jobs on a page."""

Cursor = tuple[datetime, UUID]


def dead_filter(
    *,
    job_type: str | None = None,
    user_id: str | None = None,
    error: str | None = None,
    since: str | None = None,
    until: str | None = None,
    job_ids: list[str] | None = None,
) -> DeadFilter:
    """The filter that a caller wrote; an empty member selects every job. Refusal 400."""
    return DeadFilter(
        _text("type", job_type),
        _text("userId", user_id),
        _text("error", error),
        _time("since", since),
        _time("until", until),
        job_ids,
    )


class RetryBatchBody(ArrayBody):
    """The body of POST /api/admin/dlq/retry-batch."""

    shape = RetryBatchRequest
    array = "ids"


async def read_batch(body: RetryBatchBody) -> RetryBatchRequest:
    """Return the body as a struct. Refusal 400."""
    turns = Turns()
    ids: list[str] = []
    for one in body.items():
        await turns.pause()
        if not isinstance(one, str):
            raise Refusal(400, f"ids[{len(ids)}]: not a job id")
        if len(ids) == MOST_AT_ONCE:
            raise Refusal(400, f"ids must hold 1 to {MOST_AT_ONCE} job ids")
        ids.append(one)
    batch: RetryBatchRequest = body.whole(ids)
    return batch


def batch_filter(batch: RetryBatchRequest) -> DeadFilter:
    """The filter of a batch. Refusal 400 when it selects nothing: only `all` selects all jobs."""
    which = dead_filter(
        job_type=batch.type,
        user_id=batch.user_id,
        error=batch.error,
        since=batch.since,
        until=batch.until,
        job_ids=batch.ids,
    )
    for index, job_id in enumerate(batch.ids or ()):
        if "\0" in job_id:
            raise Refusal(400, f"ids[{index}]: not a job id")
    if which == DeadFilter() and not batch.all:
        raise Refusal(
            400,
            'Say which jobs: ids, a filter (type, userId, error, since, until), or {"all": true}',
        )
    return which


def page_size(text: str | None) -> int:
    """The parameter `limit`. Refusal 400."""
    if not text:
        return PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= PAGE):
        raise Refusal(400, f"limit: a whole number from 1 to {PAGE}")
    return int(text)


def read_cursor(text: str | None) -> Cursor | None:
    """The parameter `cursor`. Refusal 400."""
    if not text:
        return None
    try:
        dead_at, _, last = (
            urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            .decode("ascii")
            .partition(",")
        )
        when = datetime.fromisoformat(dead_at)
        if when.tzinfo is None:
            raise ValueError(text)
        return when, UUID(last)
    except (ValueError, binascii.Error):
        raise Refusal(400, "cursor: not the nextCursor of a page") from None


def page(views: list[JobView], size: int, total: int) -> DeadPage:
    """The answer, from up to one job more than fits on a page: that one shows that there is a next
    page."""
    shown = views[:size]
    cursor = _cursor(shown[-1]) if len(views) > size else None
    return DeadPage(
        count=len(shown), jobs=[DeadJob.of(view) for view in shown], total=total, next_cursor=cursor
    )


def _cursor(view: JobView) -> str | None:
    if view.dead_at is None:
        return None
    return urlsafe_b64encode(f"{view.dead_at.isoformat()},{view.id}".encode()).decode().rstrip("=")


def _text(name: str, value: str | None) -> str | None:
    if value and "\0" in value:
        raise Refusal(400, f"{name}: must not contain NUL")
    return value or None


def _time(name: str, value: str | None) -> datetime | None:
    try:
        return moment(value) if value else None
    except ValueError:
        raise Refusal(
            400, f"{name}: a date and time as in RFC 3339, such as 2026-11-23T09:30:00Z"
        ) from None
