"""The operators' routes, other than those of the dead-letter queue."""

from typing import Any

from litestar import Controller, Request, get, post
from litestar.params import FromPath

from service.answers import Accepted, QueueAnswer
from service.desk import Desk, accepted
from service.openapi import refusals, takes
from service.problems import FAILED
from service.reports import Dependencies, Dependency, Queue, Queues, Stats, Worker, Workers, masked, plain
from service.requests import chosen_id, path_name, read_json, shaped
from service.schemas import EmailRequest


class Admin(Controller):
    path = "/"
    tags = ["admin"]

    @post(
        "/send-email",
        status_code=202,
        operation_class=takes(EmailRequest, "to", "subject", "body", idempotent=True),
        responses=refusals(401, 403, 409, 413, 415),
        opt={"failure": FAILED},
    )
    async def send_email(self, request: Request[Any, Any, Any]) -> Accepted:
        """A mail to one address, as a job of type email.custom."""
        desk: Desk = request.app.state.desk
        wanted = shaped(await read_json(request), EmailRequest)
        job = desk.catalog.email(wanted, chosen_id(request, wanted.job_id))
        return accepted(await desk.offer(job, request), "Email job enqueued successfully")

    @get("/jobs/stats", responses=refusals(401, 403))
    async def stats(self, request: Request[Any, Any, Any]) -> Stats:
        """How many jobs are in each state, what waits, and how the last 15 minutes went."""
        desk: Desk = request.app.state.desk
        return Stats(**await desk.patiently(desk.client.stats()))

    @get("/workers", responses=refusals(401, 403))
    async def workers(self, request: Request[Any, Any, Any]) -> Workers:
        """The processes that are alive, by their own word: workers and API."""
        desk: Desk = request.app.state.desk
        rows = await desk.patiently(desk.client.report("workers"))
        return Workers(workers=[Worker(**plain(row)) for row in rows])

    @get("/queues", responses=refusals(401, 403))
    async def queues(self, request: Request[Any, Any, Any]) -> Queues:
        """What waits in each queue, and who serves it."""
        desk: Desk = request.app.state.desk
        rows = await desk.patiently(desk.client.report("queues"))
        return Queues(queues=[Queue(**plain(row)) for row in rows])

    @get("/dependencies", responses=refusals(401, 403))
    async def breakers(self, request: Request[Any, Any, Any]) -> Dependencies:
        """What jobs depend on, and whether its circuit breaker lets them through."""
        desk: Desk = request.app.state.desk
        rows = await desk.patiently(desk.client.report("dependencies"))
        return Dependencies(dependencies=[Dependency(**masked(plain(row))) for row in rows])

    @post("/queues/{name:str}/pause", status_code=200, responses=refusals(401, 403))
    async def pause(self, request: Request[Any, Any, Any], name: FromPath[str]) -> QueueAnswer:
        """Stops claims from a queue, for all workers within 2 s; what runs goes on."""
        desk: Desk = request.app.state.desk
        await desk.soon(desk.client.pause(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=True)

    @post("/queues/{name:str}/resume", status_code=200, responses=refusals(401, 403))
    async def resume(self, request: Request[Any, Any, Any], name: FromPath[str]) -> QueueAnswer:
        """Ends a pause."""
        desk: Desk = request.app.state.desk
        await desk.soon(desk.client.resume(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=False)
