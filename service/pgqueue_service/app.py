"""The application: builds its parts and hands them to each other; decides nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import LitestarException
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import ControllerRouterHandler

from pgqueue.client import AsyncClient
from pgqueue.database.job_types import declarations
from pgqueue.database.pool import open_pool
from pgqueue.discovery import load_tasks
from pgqueue.errors import TaskError
from pgqueue.imports import imported
from pgqueue_service.api.address_limit import AddressLimit
from pgqueue_service.api.auth import Access, admin_token
from pgqueue_service.api.controllers.admin import Admin
from pgqueue_service.api.controllers.dead_letters import DeadLetters
from pgqueue_service.api.controllers.health import HealthChecks
from pgqueue_service.api.controllers.jobs import PATH, Jobs, namesakes
from pgqueue_service.api.deadlines import Deadlines
from pgqueue_service.api.gateway import JobGateway, longest
from pgqueue_service.api.job_types import JobTypes
from pgqueue_service.api.middleware import Middleware
from pgqueue_service.api.openapi import BEARER, BodySchemas, configuration
from pgqueue_service.api.problems import answer
from pgqueue_service.api.readiness import Readiness
from pgqueue_service.api.requests import ApiRequest
from pgqueue_service.settings import ServiceSettings

BODY_SIZE = 64 * 1024
"""Bytes of the largest body, except on the bulk routes."""


def create_app(settings: ServiceSettings) -> Litestar:
    """Build the HTTP service, with the routes that the task modules bring.

    Its `state` holds `stopping`, which the server sets before it stops, and `notes` for the
    operator. Raises SettingsError (no database, or a host that may not be open), TaskError.
    """
    access = Access(settings)
    tasks, _ = load_tasks(settings.modules)
    modules = [imported(name) for name in settings.modules]
    declared = declarations(tasks.values(), settings)
    pool = open_pool(settings, timeout=longest(settings))
    client = AsyncClient(pool, doorbell=settings.doorbell, timeout=longest(settings))
    deadlines = Deadlines()
    readiness = Readiness(pool, declared, deadlines, settings.request_timeout.total_seconds())
    gateway = JobGateway(
        client=client,
        job_types=JobTypes(tasks, declared, _brought(modules, "payload_rules"), settings),
        access=access,
        address_limit=AddressLimit(settings),
        readiness=readiness,
        deadlines=deadlines,
        settings=settings,
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await pool.open(wait=False)
        await readiness.beat()
        beating = asyncio.create_task(readiness.run(), name="readiness")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await readiness.leave()
            with contextlib.suppress(TimeoutError):
                await deadlines.within(1.0, client.close())
            await pool.close(timeout=1)

    app = _litestar(
        [
            Jobs,
            Router(
                "/api/admin",
                route_handlers=[Admin, DeadLetters],
                guards=[admin_token],
                security=BEARER,
            ),
            HealthChecks,
            *_brought(modules, "routes"),
        ],
        lifespan=[lifespan],
        dependencies={
            "gateway": Provide(lambda: gateway, sync_to_thread=False),
            "readiness": Provide(lambda: readiness, sync_to_thread=False),
        },
        request_class=ApiRequest,
        plugins=[BodySchemas()],
        state=State(
            {"gateway": gateway, "access": access, "stopping": False, "notes": access.notes()}
        ),
        exception_handlers={Exception: answer},
        openapi_config=configuration(),
        cors_config=_cors(settings),
        request_max_body_size=BODY_SIZE,
        # The process has configured logging. No environment variable turns on error pages that
        # show source code.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = Middleware(app.asgi_handler, access)
    return app


def _litestar(handlers: list[ControllerRouterHandler], **options: Any) -> Litestar:
    """The framework's application, with every route guarded. Raises TaskError for a route that a
    task module should not bring."""
    try:
        app = Litestar(handlers, **options)
    except (LitestarException, TypeError) as error:
        raise TaskError(f"the routes of the task modules cannot be served: {error}") from error
    words = []
    for route in app.routes:
        if not route.path.startswith("/schema") and not _is_guarded(route):
            raise TaskError(
                f"the route {route.path} has no guard: give it guards=[api_token], or another "
                "guard of pgqueue_service.api.auth"
            )
        before, _, word = route.path.rpartition("/")
        if before == PATH and "{" not in word:
            words.append(route.path)
    for handler in namesakes(words):
        app.register(handler)
    return app


def _brought(modules: Iterable[ModuleType], name: str) -> list[Any]:
    return [one for module in modules for one in getattr(module, name, ())]


def _is_guarded(route: BaseRoute) -> bool:
    # Litestar adds a handler of OPTIONS to each route.
    return isinstance(route, HTTPRoute) and all(
        handler.resolve_guards() or handler.http_methods == {"OPTIONS"}
        for handler in route.route_handlers
    )


def _cors(settings: ServiceSettings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        expose_headers=["Retry-After"],
    )
