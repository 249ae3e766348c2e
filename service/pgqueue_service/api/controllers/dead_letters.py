"""The routes of the dead-letter queue."""

from typing import Annotated

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from pgqueue_service.api.controllers.jobs import BULK_SIZE
from pgqueue_service.api.dlq_filters import (
    RetryBatchBody,
    batch_filter,
    dead_filter,
    page,
    page_size,
    read_batch,
    read_cursor,
)
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import OptionalBody, query, refusals
from pgqueue_service.api.requests import OPTIONAL_BODY, ApiRequest, JobId, path_id
from pgqueue_service.api.schemas import MOMENT, NO_NUL
from pgqueue_service.api.schemas.requests import RetryRequest
from pgqueue_service.api.schemas.responses import (
    Accepted,
    DeadPage,
    ErrorGroup,
    ErrorGroups,
    ReplayAnswer,
    plain,
)


class DeadLetters(Controller):
    path = "/dlq"
    tags = ["dead letters"]

    @get(["/", "/list"], responses=refusals(401, 403))
    async def list_(
        self,
        gateway: NamedDependency[JobGateway],
        job_type: Annotated[str | None, query("type", pattern=NO_NUL)] = None,
        user_id: Annotated[str | None, query("userId", pattern=NO_NUL)] = None,
        error: Annotated[str | None, query("error", pattern=NO_NUL)] = None,
        since: Annotated[str | None, query("since", pattern=MOMENT)] = None,
        until: Annotated[str | None, query("until", pattern=MOMENT)] = None,
        cursor: Annotated[str | None, query("cursor")] = None,
        limit: Annotated[str | None, query("limit", pattern="^([1-9][0-9]?|100)?$")] = None,
    ) -> DeadPage:
        """Get a page of dead jobs, newest first. `error` is a part of the error; `since` and
        `until` limit the time at which a job was moved to the queue."""
        which = dead_filter(
            job_type=job_type, user_id=user_id, error=error, since=since, until=until
        )
        size, after = page_size(limit), read_cursor(cursor)
        total = await gateway.patiently(gateway.client.count_dead(which))
        return page(
            await gateway.patiently(
                gateway.client.dead_letters(which, limit=size + 1, cursor=after)
            ),
            size,
            total,
        )

    @get("/errors", responses=refusals(401, 403))
    async def errors(self, gateway: NamedDependency[JobGateway]) -> ErrorGroups:
        """Group the newest 100,000 dead jobs by error."""
        rows = await gateway.patiently(gateway.client.report("dead_letter_errors"))
        return ErrorGroups(errors=[ErrorGroup(**plain(row)) for row in rows])

    @post(
        "/retry/{jobId:str}",
        status_code=202,
        opt=OPTIONAL_BODY,
        operation_class=OptionalBody,
        responses=refusals(401, 403, 404, 409, 413, 415),
    )
    async def retry(
        self, job_id: JobId, data: JSONBody[RetryRequest], gateway: NamedDependency[JobGateway]
    ) -> Accepted:
        """Enqueue a dead job again with attempts from 0. Its history stays."""
        wanted = path_id(job_id)
        await gateway.replay(wanted, data.payload)
        return Accepted("Job enqueued again", wanted, "enqueued")

    @post(
        "/retry-batch",
        status_code=202,
        request_max_body_size=BULK_SIZE,
        responses=refusals(401, 403, 413, 415),
    )
    async def retry_batch(
        self, data: JSONBody[RetryBatchBody], gateway: NamedDependency[JobGateway]
    ) -> ReplayAnswer:
        """Enqueue dead jobs again, the longest dead first: `ratePerSecond` of them a second, at
        most 10,000 in one request."""
        batch = await read_batch(data)
        work = gateway.client.replay_many(
            batch_filter(batch), rate=batch.rate_per_second, dry_run=batch.dry_run
        )
        return ReplayAnswer.of(await gateway.patiently(work))

    @delete("/{jobId:str}", status_code=200, responses=refusals(401, 403, 404, 409))
    async def remove(self, job_id: JobId, gateway: NamedDependency[JobGateway]) -> Accepted:
        """Remove a job from the dead-letter queue. It becomes cancelled, and its id stays known."""
        return await _remove(gateway, job_id)

    @delete(
        ["/list", "/errors", "/retry", "/retry-batch"], status_code=200, include_in_schema=False
    )
    async def remove_namesake(
        self, request: ApiRequest, gateway: NamedDependency[JobGateway]
    ) -> Accepted:
        """Remove a job whose id is the word of another route."""
        return await _remove(gateway, request.last_segment)


async def _remove(gateway: JobGateway, job_id: str) -> Accepted:
    wanted = path_id(job_id)
    await gateway.soon(gateway.client.delete_dead(wanted))
    return Accepted("Job deleted", wanted, "cancelled")
