"""The processes of `pgqueue api`: the application of PGQUEUE_APP behind uvicorn, in one process or
several."""

import asyncio
import logging
import os
import socket
import sys
from typing import Any

from pgqueue import __version__
from pgqueue.cli.runner import WRONG_USAGE, cannot_load, fail, read_settings, say
from pgqueue.errors import ModuleError, SettingsError, TaskError
from pgqueue.import_path import working_directory_last
from pgqueue.imports import imported
from pgqueue.logs import configure_logging
from pgqueue_service.server.connections import BACKLOG
from pgqueue_service.server.prefork import Prefork
from pgqueue_service.server.server import serve
from pgqueue_service.settings import ServiceSettings, service_settings

log = logging.getLogger("pgqueue.api")


def run(
    processes: int, host: str | None, port: int | None, fd: int | None, parent: int | None
) -> int:
    """Serve until a signal; return the exit code. fd: the shared socket of a child, whose parent's
    end ends it."""
    working_directory_last()
    settings = service_settings(read_settings())
    settings = settings.with_(
        host=host or settings.host, port=settings.port if port is None else port
    )
    configure_logging(settings.log_level, settings.log_format, settings.quiet_loggers)
    app = _application(settings)
    if fd is not None:
        return serve(app, settings, socket.socket(fileno=fd), parent)
    listener = _listen(settings)
    _announce(app, settings, listener, processes)
    if processes == 1:
        return serve(app, settings, listener)
    return _prefork(settings, listener, processes)


def _application(settings: ServiceSettings) -> Any:
    module, _, function = settings.app.partition(":")
    try:
        create = getattr(imported(module, "module"), function)
    except ModuleError as error:
        code = cannot_load(error)
        fail(f"PGQUEUE_APP={settings.app} cannot be loaded", code if error.trace else WRONG_USAGE)
    except AttributeError as error:
        fail(f"PGQUEUE_APP={settings.app} cannot be loaded: {error}", WRONG_USAGE)
    try:
        return create(settings)
    except SettingsError as error:
        for problem in error.problems:
            say(problem)
        sys.exit(WRONG_USAGE)
    except TaskError as error:
        sys.exit(cannot_load(error))


def _listen(settings: ServiceSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        fail(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}", WRONG_USAGE
        )


def _announce(app: Any, settings: ServiceSettings, listener: socket.socket, processes: int) -> None:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    log.info(
        "pgqueue api %s listens on http://%s:%d%s",
        __version__,
        host,
        port,
        f" with {processes} processes" if processes > 1 else "",
        extra={"event": "api.started", "host": settings.host, "port": port, "processes": processes},
    )
    for note in getattr(getattr(app, "state", None), "notes", ()):
        log.warning("%s", note, extra={"event": "api.note"})


def _prefork(settings: ServiceSettings, listener: socket.socket, processes: int) -> int:
    # By -c and not -m: the command's module is then imported once, under its own name.
    command = [sys.executable, "-P", "-c", "from pgqueue_service.cli.api import api; api()"]
    command += ["--fd", str(listener.fileno()), "--parent", str(os.getpid())]
    command += ["--host", settings.host, "--port", str(settings.port)]
    return asyncio.run(Prefork(command, processes, listener, settings.drain.total_seconds()).run())
