"""The job routes: enqueue jobs, get the state of one, cancel one."""

from collections.abc import Sequence

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from pgqueue_service.api.auth import anonymous_or_token, api_token
from pgqueue_service.api.bulk import BulkBody, read_jobs, results
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import BEARER, Idempotent, refusals
from pgqueue_service.api.problems import FAILED
from pgqueue_service.api.requests import ApiRequest, JobId, path_id
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.schemas.responses import Accepted, BulkResults, JobState

ENQUEUES = {"failure": FAILED}
"""What 500 and 503 say on these routes."""

PATH = "/api/jobs"

BULK_SIZE = 16 * 1024 * 1024
"""Bytes of the largest body of a bulk route."""


class Jobs(Controller):
    path = PATH
    tags = ["jobs"]

    @post(
        "/",
        status_code=202,
        guards=[api_token],
        operation_class=Idempotent,
        responses=refusals(401, 403, 409, 413, 415, 429),
        security=BEARER,
        opt=ENQUEUES,
    )
    async def enqueue(
        self,
        request: ApiRequest,
        data: JSONBody[EnqueueRequest],
        gateway: NamedDependency[JobGateway],
    ) -> Accepted:
        """Enqueue a job of any type that the service knows."""
        return await gateway.accept(request, data, "Job enqueued")

    @post(
        "/bulk",
        status_code=202,
        guards=[api_token],
        request_max_body_size=BULK_SIZE,
        responses=refusals(401, 403, 413, 415),
        security=BEARER,
        opt=ENQUEUES,
    )
    async def bulk(
        self, request: ApiRequest, data: JSONBody[BulkBody], gateway: NamedDependency[JobGateway]
    ) -> BulkResults:
        """Enqueue up to 10,000 jobs in one commit. A malformed item refuses the whole request;
        limits and duplicates are answered for each item."""
        jobs = await read_jobs(gateway, request, data)
        return await results(await gateway.enqueue_many(jobs, request))

    @get(
        "/{jobId:str}",
        guards=[anonymous_or_token],
        responses=refusals(401, 403, 404),
        security=[{}, *BEARER],
    )
    async def show(
        self, request: ApiRequest, job_id: JobId, gateway: NamedDependency[JobGateway]
    ) -> JobState:
        """Get the state of a job."""
        return await _show(gateway, request, job_id)

    @delete(
        "/{jobId:str}",
        status_code=200,
        guards=[api_token],
        responses=refusals(401, 403, 404, 409),
        security=BEARER,
    )
    async def cancel(
        self, request: ApiRequest, job_id: JobId, gateway: NamedDependency[JobGateway]
    ) -> Accepted:
        """Cancel a job that waits or runs. A job that has ended is answered with 409."""
        return await _cancel(gateway, request, job_id)


def namesakes(paths: Sequence[str]) -> list[HTTPRouteHandler]:
    """GET and DELETE for jobs whose id is the last word of another route, such as "bulk"."""

    @get(paths, guards=[anonymous_or_token], include_in_schema=False)
    async def show_namesake(request: ApiRequest, gateway: NamedDependency[JobGateway]) -> JobState:
        return await _show(gateway, request, request.last_segment)

    @delete(paths, status_code=200, guards=[api_token], include_in_schema=False)
    async def cancel_namesake(
        request: ApiRequest, gateway: NamedDependency[JobGateway]
    ) -> Accepted:
        return await _cancel(gateway, request, request.last_segment)

    return [show_namesake, cancel_namesake]


async def _show(gateway: JobGateway, request: ApiRequest, job_id: str) -> JobState:
    return JobState.of(await gateway.view(path_id(job_id), request))


async def _cancel(gateway: JobGateway, request: ApiRequest, job_id: str) -> Accepted:
    view = await gateway.view(path_id(job_id), request)
    await gateway.soon(gateway.client.cancel(view.job_id))
    return Accepted("Job cancelled", view.job_id, "cancelled")
