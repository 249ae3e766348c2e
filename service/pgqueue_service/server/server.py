"""uvicorn, taught to stop in the order that balancers need."""

import asyncio
import logging
import os
import socket
import time
from types import FrameType
from typing import Any

import uvicorn

from pgqueue.cli.runner import spare_collections
from pgqueue_service.server.connections import Guard, Limits, protocol
from pgqueue_service.server.framing import HEAD
from pgqueue_service.settings import ServiceSettings

log = logging.getLogger("pgqueue.api")

LAST_REQUESTS = 10
"""Seconds that running requests have to finish."""

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than balancers keep theirs, so that it is they
who close it."""

LOOK = 5
"""Ticks of the server, of a tenth of a second each, between two looks at its connections."""


def serve(
    app: Any, settings: ServiceSettings, listener: socket.socket, parent: int | None = None
) -> int:
    """Serves until a signal, or until the parent is gone; returns the exit code."""
    # uvicorn says when it starts and stops, and so do we.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
    limits = Limits.of(settings)
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        loop="auto" if settings.uvloop else "asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=limits.backlog,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LAST_REQUESTS,
        h11_max_incomplete_event_size=2 * HEAD,  # what is too long was refused before
    )
    spare_collections()
    server = DrainingServer(config, app, settings.drain.total_seconds(), parent)
    server.run(sockets=[listener])
    log.info("stopped", extra={"event": "api.stopped"})
    return 0


class DrainingServer(uvicorn.Server):
    """After the first signal the application is told that it is stopping and goes on serving for
    `drain` seconds; then nothing new is accepted, and what runs may finish. After a second one the
    process ends."""

    def __init__(self, config: uvicorn.Config, app: Any, drain: float, parent: int | None) -> None:
        super().__init__(config)
        self._state = getattr(app, "state", None)
        self._drain = drain
        self._parent = parent
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stop_at is not None:
            log.warning("stopped at once by a second signal", extra={"event": "api.killed"})
            os._exit(1)
        self._stop(self._drain)

    def _stop(self, drain: float) -> None:
        log.info(
            "stopping: unready now, no new requests in %g s", drain, extra={"event": "api.stopping"}
        )
        self._stop_at = time.monotonic() + drain
        if self._state is not None:
            self._state.stopping = True

    async def on_tick(self, counter: int) -> bool:
        if self._parent is not None and self._stop_at is None and os.getppid() != self._parent:
            self._stop(0)
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        if counter % LOOK == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Guard):
                    connection.look(now)
        return await super().on_tick(counter)
