"""`pgqueue dev` with the service: Postgres, API and worker on this machine, until Ctrl-C."""

import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import click

from pgqueue.cli.dev import Children, data_option, run_system
from pgqueue.cli.runner import WRONG_USAGE, fail, read_settings
from pgqueue_service.settings import ServiceSettings, service_settings

START_TIMEOUT_SECONDS = 30.0
"""Seconds within which the API has to answer."""


@click.command()
@data_option
def dev(data: Path | None) -> None:
    """Run Postgres, migrations, the API and a worker on this machine. Ctrl-C stops all of it.

    Uses the database of DATABASE_URL, or an embedded server whose data is removed at the end. Every
    route is open and mail goes to the log, unless PGQUEUE_OPEN and MAIL_TRANSPORT are set.
    """
    settings = service_settings(read_settings(database=False))
    _refuse_a_taken_port(settings)
    environment = {"PGQUEUE_OPEN": "on"}
    if not os.environ.get("SMTP_ENABLED"):
        environment["MAIL_TRANSPORT"] = "log"

    def welcome(children: Children, url: str) -> None:
        if _await_api(settings, children):
            _print_welcome(settings, url)

    drain = settings.drain.total_seconds()
    run_system(settings, data, ["api", "worker"], environment, welcome, more_grace=drain)


def _base(settings: ServiceSettings) -> str:
    host = settings.host if settings.host not in ("0.0.0.0", "::", "") else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _await_api(settings: ServiceSettings, children: Children) -> bool:
    """Whether the API answers. The port was free, so no other program can answer there."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and all(child.poll() is None for child in children.values()):
        try:
            with urllib.request.urlopen(f"{_base(settings)}/healthz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _refuse_a_taken_port(settings: ServiceSettings) -> None:
    try:
        with socket.create_server((settings.host, settings.port)):
            return
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        fail(f"HOST {settings.host}, PORT {settings.port}: {reason}; set another PORT", WRONG_USAGE)


def _print_welcome(settings: ServiceSettings, url: str) -> None:
    base = _base(settings)
    click.echo(f"""
API        {base}
Reference  {base}/schema
Postgres   {url}

Try: curl -X POST {base}/api/jobs/signin-notification -H 'Content-Type: application/json' \\
       -d '{{"userId": "u1", "email": "ana@example.com", "name": "Ana"}}'
     curl {base}/api/admin/jobs/stats

From another terminal: DATABASE_URL='...' python3 dev.py run stats (or job ID, dlq list, workers)
Ctrl-C stops all of it.
""")
