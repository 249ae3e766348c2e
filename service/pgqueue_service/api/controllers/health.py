"""Whether the process is alive, and whether it should get requests."""

from typing import Any

from litestar import Controller, Request, get

from pgqueue_service.api.openapi import refusals
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.responses import Health


class Healths(Controller):
    path = "/"
    tags = ["health"]

    @get("/healthz")
    async def alive(self) -> Health:
        """The process answers."""
        return Health("ok")

    @get("/readyz", responses=refusals())
    async def ready(self, request: Request[Any, Any, Any]) -> Health:
        """The database answers, and holds a schema that this release can work with."""
        if request.app.state.stopping:
            raise Refusal(503, "The service is stopping", retry_after=1)
        if problem := await request.app.state.readiness.question():
            raise Refusal(503, problem, retry_after=1)
        return Health("ready")
