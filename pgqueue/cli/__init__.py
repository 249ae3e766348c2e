"""The command line. Each command's module is imported when it is called, so that `pgqueue --help`
is quick."""

from importlib import import_module

import click

from pgqueue import __version__
from pgqueue.cli.streams import open_closed_streams
from pgqueue.suggestions import did_you_mean

# Whichever command is called, and by whichever way: before it opens anything.
open_closed_streams()

COMMANDS = {
    "migrate": ("migrate", "Brings the schema up to date, and publishes the job types."),
    "status": ("status", "Schema, server, settings, connections, mail."),
    "api": ("api", "Serves the HTTP API until SIGTERM."),
    "worker": ("worker", "Performs jobs until SIGTERM."),
    "enqueue": ("jobs", "Enqueues one job."),
    "job": ("jobs", "Everything about one job."),
    "cancel": ("jobs", "Cancels a waiting or running job."),
    "dlq": ("dlq", "The dead-letter queue: list, show, retry, delete, export."),
    "queues": ("queues", "The queues, and who serves them."),
    "pause": ("queues", "Stops claims from a queue."),
    "resume": ("queues", "Ends a pause."),
    "dependencies": ("queues", "What jobs depend on, and whether it works."),
    "workers": ("workers", "The processes that are alive."),
    "stats": ("stats", "How many jobs are in each state, and how it goes."),
    "prune": ("prune", "Removes what is past its time."),
    "check": ("check", "Alert thresholds; exits 1 when one is crossed."),
    "dev": ("dev", "The whole system on this machine, until Ctrl-C."),
}
"""Command -> its module in this package, and what the list of commands says about it."""


class LazyGroup(click.Group):
    """Knows the names of its commands, and imports one only to run it."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = getattr(import_module(f"pgqueue.cli.{COMMANDS[name][0]}"), name)
        assert isinstance(found, click.Command)  # noqa: S101 - for the type checker: COMMANDS names nothing else
        return found

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            context.fail(f"there is no command {name[:100]!r}{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, says) for name, (_, says) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgqueue")
def main() -> None:
    """pgqueue: a job queue on Postgres alone.

    Says where the database is by DATABASE_URL. Exits 0 when done, 1 when what was asked about is
    not so, 2 for wrong usage or configuration, 3 when the database cannot be reached.
    """
