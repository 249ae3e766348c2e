"""Many jobs in one request: all of them are well-formed or none is taken; limits and duplicates are each item's own matter."""

import asyncio
from typing import Any

from litestar import Request

from pgqueue.client import MOST_AT_ONCE
from pgqueue.job import AnyJob, Ticket
from service.answers import BulkResult, BulkResults
from service.auth import Level
from service.desk import Desk, accepted
from service.patience import SLICE, Turns
from service.problems import Refusal, refusal
from service.requests import decoded, read_body, shaped, valid_id
from service.schemas import BulkRequest, EnqueueRequest
from service.strict import Items

COUNT = f"jobs must hold 1 to {MOST_AT_ONCE} jobs"


async def read_jobs(desk: Desk, request: Request[Any, Any, Any]) -> list[AnyJob]:
    """The jobs of the request. Refusal 400 or 403 names the index of the first item that cannot be taken. TimeoutError."""
    items = await _items(await read_body(request))
    turns = Turns(desk.deadline(request))
    jobs: list[AnyJob] = []
    # In a thread: one item may be as large as a body.
    while some := await asyncio.to_thread(items.some, SLICE):
        for item in some:
            await turns.pause()
            if len(jobs) == MOST_AT_ONCE:
                raise Refusal(400, COUNT)
            try:
                jobs.append(_read(desk, request, item))
            except Refusal as error:
                index = len(jobs)
                raise Refusal(error.status, f"jobs[{index}]: {error.sentence}", index=index, headers=error.headers) from None
    if not jobs:
        raise Refusal(400, COUNT)
    return jobs


async def _items(body: bytes) -> Items:
    items = Items.of(body, "jobs")
    if items is None:
        shaped(await decoded(body), BulkRequest)  # which says what is wrong
        raise Refusal(400, "jobs must be an array")
    return items


def _read(desk: Desk, request: Request[Any, Any, Any], item: Any) -> AnyJob:
    if isinstance(item, Refusal):
        raise item
    wanted = shaped(item, EnqueueRequest, "A job")
    if desk.catalog.is_admins(wanted.type):
        desk.access.demand(request, Level.ADMIN)
    return desk.catalog.job(wanted, valid_id(wanted.job_id))


async def results(tickets: list[Ticket]) -> BulkResults:
    """What came of each."""
    turns = Turns()
    answers = []
    for ticket in tickets:
        await turns.pause()
        answers.append(_result(ticket))
    return BulkResults(results=answers)


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
