"""Many jobs in one request: all of them are well-formed or none is taken; limits and duplicates are each item's own matter."""

import asyncio
from typing import Any

from litestar import Request

from pgqueue.client import MOST_AT_ONCE
from pgqueue.job import NewJob, Ticket
from service.answers import BulkResult, BulkResults
from service.auth import Level
from service.desk import Desk, accepted
from service.problems import Refusal, refusal
from service.requests import shaped, valid_id
from service.schemas import BulkRequest, EnqueueRequest

BREATH = 200
"""Items that are read before other requests get their turn."""


async def read_jobs(desk: Desk, request: Request[Any, Any, Any], body: Any) -> list[NewJob]:
    """The jobs of the request. Refusal 400 or 403 names the index of the first item that cannot be taken."""
    items = shaped(body, BulkRequest).jobs
    if not 1 <= len(items) <= MOST_AT_ONCE:
        raise Refusal(400, f"jobs must hold 1 to {MOST_AT_ONCE} jobs")
    jobs = []
    for index, item in enumerate(items):
        if index % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        try:
            jobs.append(_read(desk, request, item))
        except Refusal as error:
            raise Refusal(error.status, f"jobs[{index}]: {error.sentence}", index=index, headers=error.headers) from None
    return jobs


def _read(desk: Desk, request: Request[Any, Any, Any], item: Any) -> NewJob:
    wanted = shaped(item, EnqueueRequest, "A job")
    if desk.catalog.is_admins(wanted.type):
        desk.access.demand(request, Level.ADMIN)
    return desk.catalog.job(wanted, valid_id(wanted.job_id))


def results(tickets: list[Ticket]) -> BulkResults:
    return BulkResults(results=[_result(ticket) for ticket in tickets])


def _result(ticket: Ticket) -> BulkResult:
    try:
        taken = accepted(ticket, "")
    except Exception as error:  # noqa: BLE001 - the table knows all of them
        found = refusal(error)
        return BulkResult(
            job_id=ticket.job_id,
            error=found.sentence,
            code=found.status,
            retry_after=found.retry_after,
            job_status=found.job_status,
        )
    return BulkResult(job_id=taken.job_id, status=taken.status)
