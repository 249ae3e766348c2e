"""Health checks: whether the process is alive, and whether it should get requests."""

from litestar import Controller, get
from litestar.datastructures import State
from litestar.di import NamedDependency

from pgqueue_service.api.auth import open_to_all
from pgqueue_service.api.openapi import refusals
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.readiness import Readiness
from pgqueue_service.api.schemas.responses import Health


class HealthChecks(Controller):
    path = "/"
    tags = ["health"]
    guards = [open_to_all]

    @get("/healthz")
    async def alive(self) -> Health:
        """Answer as long as the process is alive."""
        return Health("ok")

    @get("/readyz", responses=refusals())
    async def ready(self, state: State, readiness: NamedDependency[Readiness]) -> Health:
        """Check that the database answers and that its schema fits this release."""
        if state.stopping:
            raise Refusal(503, "The service is stopping", retry_after=1)
        if problem := await readiness.question():
            raise Refusal(503, problem, retry_after=1)
        return Health("ready")
