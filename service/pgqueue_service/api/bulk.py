"""Many jobs in one request: one that is malformed refuses the whole; limits and duplicates are
answered for each item."""

from typing import Any

import msgspec

from pgqueue.client import MOST_AT_ONCE
from pgqueue.job import AnyJob, Ticket
from pgqueue_service.api.array_body import ArrayBody
from pgqueue_service.api.auth import Level
from pgqueue_service.api.deadlines import Turns
from pgqueue_service.api.gateway import JobGateway, accepted
from pgqueue_service.api.problems import Refusal, refusal
from pgqueue_service.api.requests import ApiRequest, valid_id
from pgqueue_service.api.schemas.requests import BulkRequest, EnqueueRequest
from pgqueue_service.api.schemas.responses import BulkResult, BulkResults
from pgqueue_service.api.structs import shaped

COUNT = f"jobs must hold 1 to {MOST_AT_ONCE} jobs"


class BulkBody(ArrayBody):
    """The body of POST /api/jobs/bulk."""

    shape = BulkRequest
    array = "jobs"


async def read_jobs(gateway: JobGateway, request: ApiRequest, body: BulkBody) -> list[AnyJob]:
    """Return the jobs of the body. Refusal 400, 403 or 413 names the index of the first item that
    is refused. TimeoutError."""
    turns = Turns(gateway.deadline(request))
    jobs: list[AnyJob] = []
    for item in body.items():
        await turns.pause()
        if len(jobs) == MOST_AT_ONCE:
            raise Refusal(400, COUNT)
        try:
            jobs.append(_read(gateway, request, item))
        except Refusal as error:
            index = len(jobs)
            raise Refusal(
                error.status, f"jobs[{index}]: {error.sentence}", index=index, headers=error.headers
            ) from None
    body.whole([])  # raises when what surrounds them is wrong
    if not jobs:
        raise Refusal(400, COUNT)
    return jobs


def _read(gateway: JobGateway, request: ApiRequest, item: Any) -> AnyJob:
    wanted = shaped(item, EnqueueRequest, "A job")
    if gateway.job_types.is_admins(wanted.type):
        gateway.access.demand(request, Level.ADMIN)
    job = gateway.job_types.job(wanted, valid_id(wanted.job_id))
    # As text: 16 MiB of "{}," are 400 MB as objects, and a second until they are all freed.
    return msgspec.structs.replace(job, payload=msgspec.Raw(msgspec.json.encode(job.payload)))


async def results(tickets: list[Ticket]) -> BulkResults:
    """Return the result of each item, in order."""
    turns = Turns()
    answers = []
    for ticket in tickets:
        await turns.pause()
        answers.append(_result(ticket))
    return BulkResults(results=answers)


def _result(ticket: Ticket) -> BulkResult:
    try:
        taken = accepted(ticket, "")
    except Exception as error:  # noqa: BLE001 - the map knows all of them
        found = refusal(error)
        return BulkResult(
            job_id=ticket.job_id,
            error=found.sentence,
            code=found.status,
            retry_after=found.retry_after,
            job_status=found.job_status,
        )
    return BulkResult(job_id=taken.job_id, status=taken.status)
