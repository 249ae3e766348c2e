"""The application: builds its parts and hands them to each other; decides nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State

from pgqueue.client import AsyncClient
from pgqueue.database.job_types import declarations
from pgqueue.database.pool import open_pool
from pgqueue.discovery import load_tasks
from pgqueue_service.api.address_limit import Addresses
from pgqueue_service.api.auth import Access, admin_token
from pgqueue_service.api.catalog import Catalog
from pgqueue_service.api.controllers.admin import Admin
from pgqueue_service.api.controllers.dead_letters import DeadLetters
from pgqueue_service.api.controllers.health import Healths
from pgqueue_service.api.controllers.jobs import Jobs
from pgqueue_service.api.deadlines import Deadlines
from pgqueue_service.api.gateway import JobGateway, longest
from pgqueue_service.api.middleware import Middleware
from pgqueue_service.api.openapi import BEARER, configuration
from pgqueue_service.api.problems import answer
from pgqueue_service.api.readiness import Readiness
from pgqueue_service.settings import ServiceSettings

BODY_SIZE = 64 * 1024
"""The largest body, but for bulk."""


def create_app(settings: ServiceSettings) -> Litestar:
    """The HTTP service. Its `state` holds `stopping`, which the server sets before it stops, and
    `notes` for the operator.

    Raises SettingsError (no database, or a host that may not be open), TaskError.
    """
    access = Access(settings)
    tasks, _ = load_tasks(settings.modules)
    declared = declarations(tasks.values(), settings)
    pool = open_pool(settings, timeout=longest(settings))
    client = AsyncClient(pool, doorbell=settings.doorbell, timeout=longest(settings))
    deadlines = Deadlines()
    readiness = Readiness(pool, declared, deadlines, settings.request_timeout.total_seconds())
    gateway = JobGateway(
        client,
        Catalog(tasks, declared, settings),
        access,
        Addresses(settings),
        readiness,
        deadlines,
        settings,
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

    app = Litestar(
        [
            Jobs,
            Router(
                "/api/admin",
                route_handlers=[Admin, DeadLetters],
                before_request=admin_token,
                security=BEARER,
            ),
            Healths,
        ],
        lifespan=[lifespan],
        state=State(
            {
                "gateway": gateway,
                "access": access,
                "readiness": readiness,
                "stopping": False,
                "notes": access.notes(),
            }
        ),
        exception_handlers={Exception: answer},
        openapi_config=configuration(),
        cors_config=_cors(settings),
        request_max_body_size=BODY_SIZE,
        # Ours is configured by whoever runs the process; and no stranger's environment turns error
        # pages with source code on.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = Middleware(app.asgi_handler, access)
    return app


def _cors(settings: ServiceSettings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        expose_headers=["Retry-After"],
    )
