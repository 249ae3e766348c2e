"""The application: builds its parts and hands them to each other; decides nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State

from pgqueue.client import Client
from pgqueue.pool import open_pool
from pgqueue.registry import declarations
from pgqueue.settings import Settings
from pgqueue.task import load_tasks
from service.addresses import Addresses
from service.auth import Access, admin_token
from service.catalog import Catalog
from service.controllers.admin import Admin
from service.controllers.dead_letters import DeadLetters
from service.controllers.health import Healths
from service.controllers.jobs import Jobs
from service.desk import Desk, longest
from service.door import Door
from service.openapi import BEARER, configuration
from service.patience import Patience
from service.presence import Presence
from service.problems import answer

BODY_SIZE = 64 * 1024
"""The largest body, but for bulk."""


def create_app(settings: Settings) -> Litestar:
    """The HTTP service. Its `state` holds `stopping`, which the server sets before it stops, and `notes` for the operator.

    Raises SettingsError (no database, or a host that may not be open), TaskError.
    """
    access = Access(settings)
    tasks, _ = load_tasks(settings.modules)
    declared = declarations(tasks.values(), settings)
    pool = open_pool(settings, timeout=longest(settings))
    client = Client(pool, doorbell=settings.doorbell, timeout=longest(settings))
    patience = Patience()
    presence = Presence(pool, declared, patience, settings.request_timeout.total_seconds())
    desk = Desk(client, Catalog(tasks, declared, settings), access, Addresses(settings), presence, patience, settings)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await pool.open(wait=False)
        await presence.beat()
        beating = asyncio.create_task(presence.run(), name="presence")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await presence.leave()
            with contextlib.suppress(TimeoutError):
                await patience.within(1.0, client.close())
            await pool.close(timeout=1)

    app = Litestar(
        [Jobs, Router("/api/admin", route_handlers=[Admin, DeadLetters], before_request=admin_token, security=BEARER), Healths],
        lifespan=[lifespan],
        state=State({"desk": desk, "access": access, "presence": presence, "stopping": False, "notes": access.notes()}),
        exception_handlers={Exception: answer},
        openapi_config=configuration(),
        cors_config=_cors(settings),
        request_max_body_size=BODY_SIZE,
        # Ours is configured by whoever runs the process; and no stranger's environment turns error pages with source code on.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = Door(app.asgi_handler, access)
    return app


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        expose_headers=["Retry-After"],
    )
