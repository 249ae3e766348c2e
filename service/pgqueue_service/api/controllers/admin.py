"""The operators' routes, other than those of the dead-letter queue."""

from typing import Any

from litestar import Controller, Request, get, post
from litestar.params import FromPath
from msgspec.structs import asdict

from pgqueue_service.api.gateway import JobGateway, accepted
from pgqueue_service.api.openapi import refusals, takes
from pgqueue_service.api.problems import FAILED
from pgqueue_service.api.reports import (
    Dependencies,
    Dependency,
    Queue,
    Queues,
    Stats,
    Worker,
    Workers,
    masked,
    plain,
)
from pgqueue_service.api.requests import chosen_id, path_name, read_json, shaped
from pgqueue_service.api.responses import Accepted, QueueAnswer
from pgqueue_service.api.schemas import EmailRequest


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
        gateway: JobGateway = request.app.state.gateway
        wanted = shaped(await read_json(request), EmailRequest)
        job = gateway.catalog.email(wanted, chosen_id(request, wanted.job_id))
        return accepted(await gateway.offer(job, request), "Email job enqueued successfully")

    @get("/jobs/stats", responses=refusals(401, 403))
    async def stats(self, request: Request[Any, Any, Any]) -> Stats:
        """How many jobs are in each state, what waits, and how the last 15 minutes went."""
        gateway: JobGateway = request.app.state.gateway
        return Stats(**asdict(await gateway.patiently(gateway.client.stats())))

    @get("/workers", responses=refusals(401, 403))
    async def workers(self, request: Request[Any, Any, Any]) -> Workers:
        """The processes that are alive, by their own word: workers and API."""
        gateway: JobGateway = request.app.state.gateway
        rows = await gateway.patiently(gateway.client.report("workers"))
        return Workers(workers=[Worker(**plain(row)) for row in rows])

    @get("/queues", responses=refusals(401, 403))
    async def queues(self, request: Request[Any, Any, Any]) -> Queues:
        """What waits in each queue, and who serves it."""
        gateway: JobGateway = request.app.state.gateway
        rows = await gateway.patiently(gateway.client.report("queues"))
        return Queues(queues=[Queue(**plain(row)) for row in rows])

    @get("/dependencies", responses=refusals(401, 403))
    async def breakers(self, request: Request[Any, Any, Any]) -> Dependencies:
        """What jobs depend on, and whether its circuit breaker lets them through."""
        gateway: JobGateway = request.app.state.gateway
        rows = await gateway.patiently(gateway.client.report("dependencies"))
        return Dependencies(dependencies=[Dependency(**masked(plain(row))) for row in rows])

    @post("/queues/{name:str}/pause", status_code=200, responses=refusals(401, 403))
    async def pause(self, request: Request[Any, Any, Any], name: FromPath[str]) -> QueueAnswer:
        """Stops claims from a queue, for all workers within 2 s; what runs goes on."""
        gateway: JobGateway = request.app.state.gateway
        await gateway.soon(gateway.client.pause(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=True)

    @post("/queues/{name:str}/resume", status_code=200, responses=refusals(401, 403))
    async def resume(self, request: Request[Any, Any, Any], name: FromPath[str]) -> QueueAnswer:
        """Ends a pause."""
        gateway: JobGateway = request.app.state.gateway
        await gateway.soon(gateway.client.resume(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=False)
