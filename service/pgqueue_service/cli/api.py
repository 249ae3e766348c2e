"""`pgqueue api`."""

import sys

import click

from pgqueue.cli.signals import Stop


@click.command()
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Number of processes that share the port.",
)
@click.option("--host", metavar="ADDRESS", help="Address, instead of HOST.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port, instead of PORT; 0 takes a free one."
)
@click.option("--fd", type=int, hidden=True, help="The socket that prefork processes share.")
@click.option("--parent", type=int, hidden=True, help="The process whose end ends this one.")
def api(
    processes: int, host: str | None, port: int | None, fd: int | None, parent: int | None
) -> None:
    """Serve the HTTP API until SIGTERM or SIGINT. A second signal ends it at once."""
    Stop().install()
    # `pgqueue --help` loads this module. Only the command itself loads the server.
    from pgqueue_service.cli.api_process import run

    sys.exit(run(processes, host, port, fd, parent))
