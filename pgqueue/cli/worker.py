"""`pgqueue worker`, the same as `python -m pgqueue.worker`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import click

from pgqueue.cli.common import (
    ADVICE,
    CANNOT_CONNECT,
    NOT_SO,
    WRONG_USAGE,
    explain,
    read_settings,
    say,
    seconds,
    spare_collections,
)
from pgqueue.cli.files import raise_file_limit
from pgqueue.database import AWAY
from pgqueue.environment import parse_queues
from pgqueue.errors import SchemaError, SettingsError, TaskError
from pgqueue.reasons import reason
from pgqueue.settings import Settings
from pgqueue.task import load_tasks
from pgqueue.telemetry import configure_logging
from pgqueue.worker.health import health_server
from pgqueue.worker.worker import Worker

log = logging.getLogger("pgqueue.worker")

PATIENCE = 30.0
"""Seconds that a worker waits for the database when it starts."""


@click.command()
@click.option("--queue", "queues", multiple=True, metavar="NAME:CONCURRENCY", help="A queue to serve; may be repeated.")
@click.option("--modules", metavar="A,B", help="Modules whose tasks are run.")
@click.option("--shutdown-timeout", metavar="DURATION", help="How long running jobs may go on after SIGTERM.")
@click.option("--health-port", type=click.IntRange(0, 65535), help="Port of /healthz and /readyz; 0 takes a free one.")
def worker(queues: tuple[str, ...], modules: str | None, shutdown_timeout: str | None, health_port: int | None) -> None:
    """Performs jobs until SIGTERM or SIGINT; a second signal ends it at once."""
    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)
    changes: dict[str, Any] = {}
    try:
        if queues:
            changes["queues"] = parse_queues(",".join(queues))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--queue") from None
    if modules:
        changes["modules"] = tuple(name.strip() for name in modules.split(",") if name.strip())
    if shutdown_timeout is not None:
        changes["shutdown_timeout"] = timedelta(seconds=seconds(shutdown_timeout, "--shutdown-timeout"))
    if health_port is not None:
        changes["health_port"] = health_port
    sys.exit(work(settings.with_(**changes)))


def work(settings: Settings) -> int:
    """Runs a worker and returns the exit code. Does not wait for threads of handlers that do not end."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        _ = settings.conninfo
        tasks, homes = load_tasks(settings.modules)
    except (SettingsError, TaskError) as error:
        return _complain(error)
    spare_collections()
    raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
        code = runner.run(_run(Worker(settings, tasks, homes)))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


async def _run(one: Worker) -> int:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if one.stopping.is_set():
            log.warning("stopped at once by a second signal", extra={"event": "worker.killed"})
            os._exit(1)
        one.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        patience = one.settings.header_timeout.total_seconds()
        async with health_server(one.settings.health_port, lambda: one.healthy, patience) as port:
            if port:
                log.info("health on port %d: /healthz, /readyz", port, extra={"event": "health.started", "port": port})
            await _patiently(one.run, one)
    except SchemaError as error:
        say(str(error))
        return NOT_SO
    except (SettingsError, TaskError) as error:
        return _complain(error)
    except AWAY as error:
        log.error("%s", explain(error)[0], extra={"event": "worker.failed"})
        return CANNOT_CONNECT
    except Exception:
        log.exception("the worker failed", extra={"event": "worker.failed"})
        return 1
    return 0


async def _patiently(run: Callable[[], Coroutine[Any, Any, None]], one: Worker) -> None:
    """A database that is still starting is waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    said = ""
    while True:
        try:
            return await run()
        except AWAY as error:
            if loop.time() >= deadline or one.stopping.is_set() or one.ready.is_set():
                raise
            if (why := reason(error)) != said:
                said = why
                log.warning(
                    "waiting for the database, at most %.0f s: %s. %s",
                    deadline - loop.time(),
                    why,
                    ADVICE,
                    extra={"event": "worker.waiting"},
                )
        try:
            async with asyncio.timeout(1.0):
                await one.stopping.wait()
            return
        except TimeoutError:
            pass


def _complain(error: SettingsError | TaskError) -> int:
    for problem in error.problems if isinstance(error, SettingsError) else [str(error)]:
        say(problem)
    return WRONG_USAGE


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not settings.uvloop:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
