"""The command line. The module of a command is imported when the command runs, so that
`pgqueue --help` is quick."""

from importlib import import_module
from importlib.metadata import EntryPoint

import click

from pgqueue.cli.streams import open_closed_streams
from pgqueue.errors import SettingsError
from pgqueue.plugins import commands, load
from pgqueue.suggestions import did_you_mean
from pgqueue.version import __version__

# For every command, before it opens a file or a connection.
open_closed_streams()

COMMANDS = {
    "migrate": ("migrate", "Migrate the schema, and publish the job types."),
    "status": ("status", "Show schema, server, connections and settings."),
    "worker": ("worker", "Run jobs until SIGTERM."),
    "enqueue": ("jobs", "Enqueue one job."),
    "job": ("jobs", "Show one job."),
    "cancel": ("jobs", "Cancel a job that waits or runs."),
    "dlq": ("dlq", "The dead-letter queue: list, show, retry, delete, export."),
    "queues": ("queues", "List the queues and their workers."),
    "pause": ("queues", "Pause a queue."),
    "resume": ("queues", "Resume a paused queue."),
    "dependencies": ("queues", "List the dependencies of jobs and their circuit breakers."),
    "workers": ("workers", "List the processes that are alive."),
    "stats": ("stats", "Count the jobs in each state, and show recent results."),
    "prune": ("prune", "Remove jobs and ids that are past their time."),
    "check": ("check", "Compare health with thresholds; exits 1 when one is crossed."),
    "dev": ("dev", "Run Postgres and a worker on this machine, until Ctrl-C."),
}
"""Command -> its module in this package, and what the list of commands says about it."""


SERVICE_COMMANDS = ("api",)
"""Commands of the distribution pgqueue-service, which may not be installed."""


class LazyGroup(click.Group):
    """Knows the names of its commands, and imports one only to run it. Another distribution may add
    commands, or replace one of ours, by the entry point group `pgqueue.commands`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list({**COMMANDS, **commands()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if point := commands().get(name):
            try:
                found = load(point)
            except SettingsError as error:
                context.fail(str(error))
        elif name in COMMANDS:
            found = getattr(import_module(f"pgqueue.cli.{COMMANDS[name][0]}"), name)
        else:
            return None
        if not isinstance(found, click.Command):
            context.fail(f"{name} is not a click command")
        return found

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(context)
        if name not in known and not name.startswith("-"):
            if name in SERVICE_COMMANDS:
                context.fail(
                    f"pgqueue {name} is part of pgqueue-service, which is not installed: "
                    "pip install pgqueue-service"
                )
            context.fail(f"there is no command {name[:100]!r}{did_you_mean(name, known)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(context):
            point = commands().get(name)
            says = help_of(point) if point else COMMANDS[name][1]
            rows.append((name, says))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def help_of(point: EntryPoint) -> str:
    """The first line of the command's help, or why there is none: `--help` always works."""
    try:
        command: click.Command = load(point)
        return command.get_short_help_str(limit=100)
    except SettingsError as error:
        return str(error)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgqueue")
def main() -> None:
    """pgqueue: a job queue on Postgres alone.

    DATABASE_URL names the database. Exit codes: 0 done, 1 not so (no such job, a threshold is
    crossed), 2 wrong usage or configuration, 3 the database cannot be reached.
    """
