"""The routes of the dead-letter queue."""

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post

from pgqueue_service.api.dead_letters import (
    batch_filter,
    dead_filter,
    page,
    page_size,
    read_batch,
    read_cursor,
)
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import query, refusals, takes
from pgqueue_service.api.reports import ErrorGroup, ErrorGroups, plain
from pgqueue_service.api.requests import JobId, last_of_path, path_id, read_body, read_json, shaped
from pgqueue_service.api.responses import Accepted, DeadPage, ReplayAnswer
from pgqueue_service.api.schemas import MOMENT, NO_NUL, RetryBatchRequest, RetryRequest


class DeadLetters(Controller):
    path = "/dlq"
    tags = ["dead letters"]

    @get(["/", "/list"], responses=refusals(401, 403))
    async def list_(
        self,
        request: Request[Any, Any, Any],
        job_type: Annotated[str | None, query("type", pattern=NO_NUL)] = None,
        user_id: Annotated[str | None, query("userId", pattern=NO_NUL)] = None,
        error: Annotated[str | None, query("error", pattern=NO_NUL)] = None,
        since: Annotated[str | None, query("since", pattern=MOMENT)] = None,
        until: Annotated[str | None, query("until", pattern=MOMENT)] = None,
        cursor: Annotated[str | None, query("cursor")] = None,
        limit: Annotated[str | None, query("limit", pattern="^([1-9][0-9]?|100)?$")] = None,
    ) -> DeadPage:
        """A page of dead jobs, newest first; `error` is a part of the error, `since` and `until`
        are times of death."""
        gateway: JobGateway = request.app.state.gateway
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
    async def errors(self, request: Request[Any, Any, Any]) -> ErrorGroups:
        """Why jobs died: the newest 100,000, grouped by error."""
        gateway: JobGateway = request.app.state.gateway
        rows = await gateway.patiently(gateway.client.report("dead_letter_errors"))
        return ErrorGroups(errors=[ErrorGroup(**plain(row)) for row in rows])

    @post(
        "/retry/{jobId:str}",
        status_code=202,
        operation_class=takes(RetryRequest, optional=True),
        responses=refusals(401, 403, 404, 409, 413, 415),
    )
    async def retry(self, request: Request[Any, Any, Any], job_id: JobId) -> Accepted:
        """Sends a dead job back with attempts from 0; its history stays."""
        gateway: JobGateway = request.app.state.gateway
        body = await read_json(request, may_be_empty=True)
        wanted = path_id(job_id)
        await gateway.replay(wanted, shaped(body, RetryRequest).payload)
        return Accepted("Job enqueued again", wanted, "enqueued")

    @post(
        "/retry-batch",
        status_code=202,
        request_max_body_size=16 * 1024 * 1024,
        operation_class=takes(RetryBatchRequest),
        responses=refusals(401, 403, 413, 415),
    )
    async def retry_batch(self, request: Request[Any, Any, Any]) -> ReplayAnswer:
        """Sends dead jobs back, the longest dead first, `ratePerSecond` of them a second and at
        most 10,000 a call."""
        gateway: JobGateway = request.app.state.gateway
        batch = await read_batch(await read_body(request))
        work = gateway.client.replay_many(
            batch_filter(batch), rate=batch.rate_per_second, dry_run=batch.dry_run
        )
        return ReplayAnswer.of(await gateway.patiently(work))

    @delete("/{jobId:str}", status_code=200, responses=refusals(401, 403, 404, 409))
    async def remove(self, request: Request[Any, Any, Any], job_id: JobId) -> Accepted:
        """Takes a job out of the dead-letter queue: it becomes cancelled, and its id stays
        known."""
        return await _remove(request, job_id)

    @delete(
        ["/list", "/errors", "/retry", "/retry-batch"], status_code=200, include_in_schema=False
    )
    async def remove_namesake(self, request: Request[Any, Any, Any]) -> Accepted:
        """The same for a job that is called as one of the routes above."""
        return await _remove(request, last_of_path(request))


async def _remove(request: Request[Any, Any, Any], job_id: str) -> Accepted:
    gateway: JobGateway = request.app.state.gateway
    wanted = path_id(job_id)
    await gateway.soon(gateway.client.delete_dead(wanted))
    return Accepted("Job deleted", wanted, "cancelled")
