"""`pgqueue dev`: Postgres, API and worker on this machine, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from pgqueue.cli.runner import CANNOT_CONNECT, WRONG_USAGE, fail, read_settings, run_async
from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer, ServerUnavailable
from pgqueue.settings import Settings

PATIENCE = 30.0
"""Seconds in which the API has to answer."""


Child = subprocess.Popen[bytes]


class Stopped(Exception):
    """A signal asked for the end."""


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the embedded Postgres's data here.",
)
def dev(data: Path | None) -> None:
    """Runs the whole system on this machine: Postgres, migrations, the API and a worker. Ctrl-C
    stops all of it.

    Uses the database of DATABASE_URL, or an embedded server that is gone afterwards. Every route is
    open and mail goes to the log, unless PGQUEUE_OPEN and MAIL_TRANSPORT say otherwise.
    """
    settings = read_settings(database=False)
    children: dict[str, Child] = {}
    try:
        with _signals(children), ExitStack() as stack:
            sys.exit(_up(settings, data, children, stack))
    except Stopped:
        click.echo("stopped")
    except ServerUnavailable as error:
        fail(f"{error}. Or say in DATABASE_URL where a Postgres is", CANNOT_CONNECT)


@contextmanager
def _signals(children: dict[str, Child]) -> Iterator[None]:
    """The first signal ends the work in order, a second one at once."""
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


def _up(settings: Settings, data: Path | None, children: dict[str, Child], stack: ExitStack) -> int:
    environment = {"PGQUEUE_OPEN": "on", **os.environ}
    if not any(os.environ.get(name) for name in ("MAIL_TRANSPORT", "SMTP_ENABLED")):
        environment["MAIL_TRANSPORT"] = "log"
    _refuse_a_taken_port(settings)
    embedded = not settings.database_url
    if embedded:
        server = stack.enter_context(EmbeddedServer(home=data))
        environment |= {
            "DATABASE_URL": server.url(),
            "PGQUEUE_DIRECT_URL": "",
            "PGQUEUE_PGBOUNCER": "off",
        }
        settings = settings.with_(database_url=server.url(), direct_url=None, pgbouncer=False)
    elif data is not None:
        fail("--data is for the embedded Postgres, and DATABASE_URL is set", WRONG_USAGE)
    run_async(lambda: migrate(settings.direct_conninfo, told=lambda step: click.echo(step)))
    deadlines = settings.shutdown_timeout.total_seconds() + settings.drain.total_seconds() + 10
    for kind in ("api", "worker"):
        children[kind] = stack.enter_context(_child(kind, environment, deadlines))
    if _await_api(settings, children):
        _welcome(settings, settings.database_url if embedded else "that of DATABASE_URL")
    return _watch(children)


@contextmanager
def _child(kind: str, environment: dict[str, str], deadlines: float) -> Iterator[Child]:
    # A process group of its own: Ctrl-C reaches us alone, and a child hears of it once. Two signals
    # would be "at once".
    command = [sys.executable, "-m", "pgqueue.cli", kind]
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(deadlines)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _watch(children: dict[str, Child]) -> int:
    """Until a child ends; its exit code is ours."""
    while True:
        for kind, child in children.items():
            code = child.poll()
            if code is not None:
                click.echo(f"pgqueue: {kind} ended with {code}: stopping the rest", err=True)
                return code if code >= 0 else 128 - code
        time.sleep(0.1)


def _base(settings: Settings) -> str:
    host = settings.host if settings.host not in ("0.0.0.0", "::", "") else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _await_api(settings: Settings, children: dict[str, Child]) -> bool:
    """Whether our API answers; the port was free, so that nobody else's can."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and all(child.poll() is None for child in children.values()):
        try:
            with urllib.request.urlopen(f"{_base(settings)}/healthz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _refuse_a_taken_port(settings: Settings) -> None:
    try:
        with socket.create_server((settings.host, settings.port)):
            return
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        fail(f"HOST {settings.host}, PORT {settings.port}: {reason}; set another PORT", WRONG_USAGE)


def _welcome(settings: Settings, url: str | None) -> None:
    base = _base(settings)
    click.echo(f"""
API        {base}
Reference  {base}/schema
Postgres   {url}

Try: curl -X POST {base}/api/jobs/signin-notification -H 'Content-Type: application/json' \\
       -d '{{"userId": "u1", "email": "somebody@example.com", "name": "Somebody"}}'
     curl {base}/api/admin/jobs/stats

From another terminal: DATABASE_URL='...' python3 dev.py run stats (or job ID, dlq list, workers)
Ctrl-C stops all of it.
""")
