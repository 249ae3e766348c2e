"""The operators' routes, other than those of the dead-letter queue."""

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec.structs import asdict

from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import refusals
from pgqueue_service.api.requests import path_name
from pgqueue_service.api.schemas.responses import (
    Dependencies,
    Dependency,
    Queue,
    QueueAnswer,
    Queues,
    Stats,
    Worker,
    Workers,
    masked,
    plain,
)


class Admin(Controller):
    path = "/"
    tags = ["admin"]

    @get("/jobs/stats", responses=refusals(401, 403))
    async def stats(self, gateway: NamedDependency[JobGateway]) -> Stats:
        """Count the jobs in each state, the jobs that wait, and the results of the last 15
        minutes."""
        return Stats(**asdict(await gateway.patiently(gateway.client.stats())))

    @get("/workers", responses=refusals(401, 403))
    async def workers(self, gateway: NamedDependency[JobGateway]) -> Workers:
        """List the processes that are alive, workers and API."""
        rows = await gateway.patiently(gateway.client.report("workers"))
        return Workers(workers=[Worker(**plain(row)) for row in rows])

    @get("/queues", responses=refusals(401, 403))
    async def queues(self, gateway: NamedDependency[JobGateway]) -> Queues:
        """List the queues with their waiting jobs and their workers."""
        rows = await gateway.patiently(gateway.client.report("queues"))
        return Queues(queues=[Queue(**plain(row)) for row in rows])

    @get("/dependencies", responses=refusals(401, 403))
    async def breakers(self, gateway: NamedDependency[JobGateway]) -> Dependencies:
        """List the dependencies of jobs and the states of their circuit breakers."""
        rows = await gateway.patiently(gateway.client.report("dependencies"))
        return Dependencies(dependencies=[Dependency(**masked(plain(row))) for row in rows])

    @post("/queues/{name:str}/pause", status_code=200, responses=refusals(401, 403))
    async def pause(self, name: FromPath[str], gateway: NamedDependency[JobGateway]) -> QueueAnswer:
        """Pause a queue: within 2 s no worker claims jobs from it. Running jobs continue."""
        await gateway.soon(gateway.client.pause(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=True)

    @post("/queues/{name:str}/resume", status_code=200, responses=refusals(401, 403))
    async def resume(
        self, name: FromPath[str], gateway: NamedDependency[JobGateway]
    ) -> QueueAnswer:
        """Resume a paused queue."""
        await gateway.soon(gateway.client.resume(queue := path_name(name)))
        return QueueAnswer(queue=queue, paused=False)
