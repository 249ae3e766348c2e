"""The job routes: handing jobs in, looking at one, cancelling one."""

from typing import Any

from litestar import Controller, Request, delete, get, post

from pgqueue_service.api.auth import Level, anonymous_or_token, token
from pgqueue_service.api.bulk_requests import read_jobs, results
from pgqueue_service.api.gateway import JobGateway, accepted
from pgqueue_service.api.openapi import BEARER, refusals, takes
from pgqueue_service.api.problems import FAILED
from pgqueue_service.api.requests import JobId, chosen_id, last_of_path, path_id, read_json, shaped
from pgqueue_service.api.responses import Accepted, BulkResults, JobState
from pgqueue_service.api.schemas import BulkRequest, EnqueueRequest, SignInRequest

ENQUEUES = {"failure": FAILED}
"""What 500 and 503 say on these routes."""

WORDS = ["/bulk", "/signin-notification"]
"""Routes of their own, and yet ids that a job may have."""

BULK_SIZE = 16 * 1024 * 1024


class Jobs(Controller):
    path = "/api/jobs"
    tags = ["jobs"]

    @post(
        "/signin-notification",
        status_code=202,
        before_request=anonymous_or_token,
        operation_class=takes(SignInRequest, "userId", "email", "name", idempotent=True),
        responses=refusals(401, 409, 413, 415, 429),
        security=[{}, *BEARER],
        opt=ENQUEUES,
    )
    async def sign_in(self, request: Request[Any, Any, Any]) -> Accepted:
        """Somebody signed in: one mail tells them so."""
        gateway: JobGateway = request.app.state.gateway
        wanted = shaped(await read_json(request), SignInRequest)
        job = gateway.catalog.sign_in(wanted, chosen_id(request, wanted.job_id))
        gateway.admit(request, job.payload["userId"])
        return accepted(await gateway.offer(job, request), "Sign-in notification job enqueued")

    @post(
        "/",
        status_code=202,
        before_request=token,
        operation_class=takes(EnqueueRequest, idempotent=True),
        responses=refusals(401, 403, 409, 413, 415, 429),
        security=BEARER,
        opt=ENQUEUES,
    )
    async def enqueue(self, request: Request[Any, Any, Any]) -> Accepted:
        """A job of any type that the service knows."""
        gateway: JobGateway = request.app.state.gateway
        wanted = shaped(await read_json(request), EnqueueRequest)
        if gateway.catalog.is_admins(wanted.type):
            gateway.access.demand(request, Level.ADMIN)
        job = gateway.catalog.job(wanted, chosen_id(request, wanted.job_id))
        return accepted(await gateway.offer(job, request), "Job enqueued")

    @post(
        "/bulk",
        status_code=202,
        before_request=token,
        request_max_body_size=BULK_SIZE,
        operation_class=takes(BulkRequest),
        responses=refusals(401, 403, 413, 415),
        security=BEARER,
        opt=ENQUEUES,
    )
    async def bulk(self, request: Request[Any, Any, Any]) -> BulkResults:
        """Up to 10,000 jobs in one commit; a malformed one refuses the whole, limits and duplicates
        are per item."""
        gateway: JobGateway = request.app.state.gateway
        jobs = await read_jobs(gateway, request)
        return await results(await gateway.offer_all(jobs, request))

    @get(
        "/{jobId:str}",
        before_request=anonymous_or_token,
        responses=refusals(401, 403, 404),
        security=[{}, *BEARER],
    )
    async def show(self, request: Request[Any, Any, Any], job_id: JobId) -> JobState:
        """How a job stands."""
        return await _show(request, job_id)

    @get(WORDS, before_request=anonymous_or_token, include_in_schema=False)
    async def show_namesake(self, request: Request[Any, Any, Any]) -> JobState:
        """The same for a job that is called as one of the routes above."""
        return await _show(request, last_of_path(request))

    @delete(
        "/{jobId:str}",
        status_code=200,
        before_request=token,
        responses=refusals(401, 403, 404, 409),
        security=BEARER,
    )
    async def cancel(self, request: Request[Any, Any, Any], job_id: JobId) -> Accepted:
        """Ends a job that waits, or one that runs; 409 when it has ended already."""
        return await _cancel(request, job_id)

    @delete(WORDS, status_code=200, before_request=token, include_in_schema=False)
    async def cancel_namesake(self, request: Request[Any, Any, Any]) -> Accepted:
        """The same."""
        return await _cancel(request, last_of_path(request))


async def _show(request: Request[Any, Any, Any], job_id: str) -> JobState:
    gateway: JobGateway = request.app.state.gateway
    return JobState.of(await gateway.view(path_id(job_id), request))


async def _cancel(request: Request[Any, Any, Any], job_id: str) -> Accepted:
    gateway: JobGateway = request.app.state.gateway
    view = await gateway.view(path_id(job_id), request)
    await gateway.soon(gateway.client.cancel(view.job_id))
    return Accepted("Job cancelled", view.job_id, "cancelled")
