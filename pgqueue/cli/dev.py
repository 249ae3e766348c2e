"""`pgqueue dev`: Postgres and a worker on this machine, until Ctrl-C. Another distribution may
build a larger system from `run_system`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import click

from pgqueue.cli.runner import CANNOT_CONNECT, WRONG_USAGE, fail, read_settings, run_async
from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer, ServerUnavailable
from pgqueue.settings import Settings

LEEWAY = 10.0
"""Seconds that a process has to end, beyond PGQUEUE_SHUTDOWN_TIMEOUT, before it is killed."""


Child = subprocess.Popen[bytes]
Children = dict[str, Child]


class Stopped(Exception):
    """A signal asked for the end."""


data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the data of the embedded Postgres in this directory.",
)


@click.command()
@data_option
def dev(data: Path | None) -> None:
    """Run Postgres, migrations and a worker on this machine. Ctrl-C stops all of it.

    Uses the database of DATABASE_URL, or an embedded server whose data is removed at the end.
    """
    run_system(read_settings(database=False), data, ["worker"], {}, _welcome)


def run_system(
    settings: Settings,
    data: Path | None,
    processes: list[str],
    environment: Mapping[str, str],
    welcome: Callable[[Children, str], None],
    *,
    more_grace: float = 0.0,
) -> NoReturn:
    """Run these commands of pgqueue, each in a process, until one ends or a signal arrives; exits.

    environment: defaults for the processes; what is set already wins. `welcome` is called when they
    run, with the processes by name and the database's URL for display. more_grace: seconds that a
    process may take to end, beyond what a worker may.
    """
    children: Children = {}
    try:
        with _signals(children), ExitStack() as stack:
            url, given = _database(settings, data, stack)
            run_async(lambda: migrate(url, told=lambda step: click.echo(step)))
            grace = settings.shutdown_timeout.total_seconds() + LEEWAY + more_grace
            defaults = {name: one for name, one in environment.items() if not os.environ.get(name)}
            for kind in processes:
                child = _child(kind, {**os.environ, **defaults, **given}, grace)
                children[kind] = stack.enter_context(child)
            welcome(children, given.get("DATABASE_URL", "the one of DATABASE_URL"))
            sys.exit(_watch(children))
    except Stopped:
        click.echo("stopped")
        sys.exit(0)
    except ServerUnavailable as error:
        fail(f"{error}. Or set DATABASE_URL to a Postgres that is running", CANNOT_CONNECT)


def _database(
    settings: Settings, data: Path | None, stack: ExitStack
) -> tuple[str, dict[str, str]]:
    """Where to migrate, and what the processes need in their environment for that database."""
    if settings.database_url:
        if data is not None:
            fail("--data is for the embedded Postgres, and DATABASE_URL is set", WRONG_USAGE)
        return settings.direct_conninfo, {}
    server = stack.enter_context(EmbeddedServer(home=data))
    url = server.url()
    given = {"DATABASE_URL": url, "PGQUEUE_DIRECT_URL": "", "PGQUEUE_PGBOUNCER": "off"}
    return settings.with_(database_url=url, direct_url=None, pgbouncer=False).direct_conninfo, given


@contextmanager
def _signals(children: Children) -> Iterator[None]:
    """The first signal ends the processes in order, a second one kills them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, hurry)
        raise Stopped

    def hurry(*_: object) -> None:
        for child in children.values():
            child.kill()

    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _child(kind: str, environment: dict[str, str], grace: float) -> Iterator[Child]:
    # A process group of its own: Ctrl-C reaches this process alone, which passes it on once. Two
    # signals would end a child at once.
    command = [sys.executable, "-m", "pgqueue.cli", kind]
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _watch(children: Children) -> int:
    """Wait until a child ends; its exit code is ours."""
    while True:
        for kind, child in children.items():
            code = child.poll()
            if code is not None:
                click.echo(f"pgqueue: {kind} ended with {code}: stopping the rest", err=True)
                return code if code >= 0 else 128 - code
        time.sleep(0.1)


def _welcome(children: Children, url: str) -> None:
    click.echo(f"""
Postgres   {url}

From another terminal: DATABASE_URL='...' pgqueue enqueue TYPE --payload JSON (or stats, workers)
Ctrl-C stops all of it.
""")
