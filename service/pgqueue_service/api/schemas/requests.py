"""The bodies of requests."""

from typing import Annotated, Any

import msgspec

from pgqueue.client import MOST_AT_ONCE
from pgqueue_service.api.schemas import (
    LONGEST_NAME,
    DelayText,
    FilterText,
    JobIdText,
    MomentText,
    QueueText,
    Strict,
    UserIdText,
    said,
)


class EnqueueRequest(Strict):
    """A job of any type that the service knows. `delay` is a number of seconds or a text such as
    "10m". Give `delay` or `runAfter`, not both."""

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
    """A payload given here replaces the old one; the old one stays in the history."""

    payload: Any = None


class RetryBatchRequest(Strict):
    """Which dead jobs to enqueue again: by id, by a filter, or all of them. `since` and `until`
    limit the time at which a job was moved to the dead-letter queue."""

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
