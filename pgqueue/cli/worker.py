"""`pgqueue worker`, the same as `python -m pgqueue.worker`."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import click

from pgqueue.cli.file_limits import raise_file_limit
from pgqueue.cli.runner import (
    ADVICE,
    CANNOT_CONNECT,
    NOT_SO,
    WRONG_USAGE,
    cannot_load,
    explain,
    read_settings,
    say,
    seconds,
    spare_collections,
)
from pgqueue.cli.signals import Stop
from pgqueue.database.errors import AWAY
from pgqueue.database.reasons import reason
from pgqueue.discovery import lifespans_of, load_tasks
from pgqueue.error_text import name_of
from pgqueue.errors import SchemaError, SettingsError, TaskError
from pgqueue.import_path import working_directory_last
from pgqueue.logs import configure_logging
from pgqueue.settings import Settings
from pgqueue.settings.environment import parse_queues
from pgqueue.worker.handler_task import task_factory
from pgqueue.worker.health import health_server
from pgqueue.worker.worker import Worker

log = logging.getLogger("pgqueue.worker")

PATIENCE = 30.0
"""Seconds that a worker waits for the database when it starts."""

INSIST = 8.0
"""Seconds beyond the shutdown timeout in which it must have ended."""

SIGNALS = 0.05
"""Seconds between two looks whether a handler has taken the signals away."""


@click.command()
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME:CONCURRENCY",
    help="A queue to serve; may be repeated.",
)
@click.option("--modules", metavar="A,B", help="Modules with tasks, instead of PGQUEUE_MODULES.")
@click.option(
    "--shutdown-timeout",
    metavar="DURATION",
    help="How long running jobs may continue after SIGTERM.",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    help="Port of /healthz and /readyz; 0 takes a free one.",
)
def worker(
    queues: tuple[str, ...],
    modules: str | None,
    shutdown_timeout: str | None,
    health_port: int | None,
) -> None:
    """Run jobs until SIGTERM or SIGINT. A second signal ends the process at once."""
    stop = Stop()
    stop.install()
    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format, settings.quiet_loggers)
    changes: dict[str, Any] = {}
    try:
        if queues:
            changes["queues"] = parse_queues(",".join(queues))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--queue") from None
    if modules:
        changes["modules"] = tuple(name.strip() for name in modules.split(",") if name.strip())
    if shutdown_timeout is not None:
        changes["shutdown_timeout"] = timedelta(
            seconds=seconds(shutdown_timeout, "--shutdown-timeout")
        )
    if health_port is not None:
        changes["health_port"] = health_port
    sys.exit(work(settings.with_(**changes), stop))


def work(settings: Settings, stop: Stop) -> int:
    """Runs a worker and ends the process with its exit code. Does not wait for handlers that do not
    end."""
    working_directory_last()
    try:
        _ = settings.conninfo
        if not settings.modules:
            raise SettingsError(
                [
                    "PGQUEUE_MODULES is not set: name the modules that hold your tasks, as in "
                    "PGQUEUE_MODULES=myapp.tasks"
                ]
            )
        tasks, homes = load_tasks(settings.modules)
    except SettingsError as error:
        return _complain(error)
    except TaskError as error:
        return cannot_load(error)
    spare_collections()
    raise_file_limit()
    loop = (_loop_factory(settings) or asyncio.new_event_loop)()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(task_factory)
    one = Worker(settings, tasks.values(), lifespan=lifespans_of(homes))

    def begin() -> None:
        loop.call_soon_threadsafe(one.stop)

    stop.ready(begin, settings.shutdown_timeout.total_seconds() + INSIST, _killed)
    code = _turn(loop, loop.create_task(_run(one, stop)))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _killed(why: str) -> None:
    log.warning("%s", why, extra={"event": "worker.killed"})
    logging.shutdown()


def _turn(loop: asyncio.AbstractEventLoop, main: asyncio.Task[int]) -> int:
    """Turns the loop until the worker has ended. What a handler lets loose on it (stop(),
    sys.exit() in a callback) is no end."""
    process = os.getpid()
    while not main.done():
        try:
            loop.run_until_complete(main)
        except BaseException as error:  # noqa: BLE001 - sys.exit() and KeyboardInterrupt pass through a loop
            if os.getpid() != process:
                os._exit(1)  # a child of a handler, which came back by another way
            if loop.is_closed():
                log.error(
                    "the event loop was closed (%s); leases run out by themselves",
                    error,
                    extra={"event": "worker.failed"},
                )
                return 1
            if not main.done():
                log.error(
                    "a handler stopped the event loop (%s); the worker continues",
                    name_of(error),
                    extra={"event": "loop.stopped"},
                )
    return 1 if main.cancelled() else main.result()


async def _keep_signals(stop: Stop) -> None:
    while True:
        await asyncio.sleep(SIGNALS)
        if stop.keep():
            log.warning(
                "a handler replaced the signal handlers of the worker; they are installed again",
                extra={"event": "signals.kept"},
            )


async def _run(one: Worker, stop: Stop) -> int:
    keeping = asyncio.create_task(_keep_signals(stop))
    try:
        deadlines = one.settings.header_timeout.total_seconds()
        async with health_server(one.settings.health_port, lambda: one.healthy, deadlines) as port:
            if port:
                log.info(
                    "health on port %d: /healthz, /readyz",
                    port,
                    extra={"event": "health.started", "port": port},
                )
            await _patiently(one.run, one)
    except SchemaError as error:
        say(str(error))
        return NOT_SO
    except SettingsError as error:
        return _complain(error)
    except TaskError as error:
        return cannot_load(error)
    except AWAY as error:
        log.error("%s", explain(error)[0], extra={"event": "worker.failed"})
        return CANNOT_CONNECT
    except Exception:
        log.exception("the worker failed", extra={"event": "worker.failed"})
        return 1
    finally:
        keeping.cancel()
    return 0


async def _patiently(run: Callable[[], Coroutine[Any, Any, None]], one: Worker) -> None:
    """Run, and wait for a database that is still starting."""
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


def _complain(error: SettingsError) -> int:
    for problem in error.problems:
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
