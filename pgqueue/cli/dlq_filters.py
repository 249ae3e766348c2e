"""The part of the dead-letter queue that a command is about: ids, filters, or all of it."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
import msgspec

from pgqueue.client import AsyncClient
from pgqueue.durations import duration
from pgqueue.job import DeadFilter, JobView

PAGE = 500
"""Jobs that are read at once."""

F = TypeVar("F", bound=Callable[..., Any])


def when(
    context: click.Context, param: click.Parameter, value: str | None
) -> datetime | timedelta | None:
    """A moment (ISO 8601, UTC unless it says otherwise), or how long ago."""
    if value is None:
        return None
    try:
        return duration(value)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        hint = 'neither a time ("2026-11-23T10:00Z") nor a duration ("2h": two hours ago)'
        raise click.BadParameter(f"{value!r} is {hint}", context, param) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def clock(client: AsyncClient) -> datetime:
    """The time of the database."""
    now: datetime = (await client.run("read_clock"))[0]["now"]
    return now


class DlqFilters(msgspec.Struct, frozen=True):
    """The filters of the command line. Times may still be durations: the database's clock
    counts."""

    job_ids: tuple[str, ...] = ()
    job_type: str | None = None
    user_id: str | None = None
    error: str | None = None
    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None

    @property
    def filtered(self) -> bool:
        return any(
            value is not None
            for value in (self.job_type, self.user_id, self.error, self.since, self.until)
        )

    def require(self, everything: bool) -> None:
        """Exit 2 when no ids, no filters and no --all were given."""
        if everything and (self.job_ids or self.filtered):
            raise click.UsageError("--all goes with neither ids nor filters")
        if not (everything or self.job_ids or self.filtered):
            raise click.UsageError(
                "say which: ids, or filters (--type, --user, --error, --since, --until), or --all"
            )

    async def resolve(self, client: AsyncClient) -> DeadFilter:
        now: datetime | None = None
        if isinstance(self.since, timedelta) or isinstance(self.until, timedelta):
            now = await clock(client)

        def at(value: datetime | timedelta | None) -> datetime | None:
            return now - value if isinstance(value, timedelta) and now is not None else value  # type: ignore[return-value]

        ids = list(self.job_ids) or None
        return DeadFilter(
            self.job_type, self.user_id, self.error, at(self.since), at(self.until), ids
        )


def filters(command: F) -> F:
    """Adds the filter options; the command gets them as job_type, user_id, error, since and
    until."""
    options = [
        click.option("--type", "job_type", help="Jobs of this type."),
        click.option("--user", "user_id", help="Jobs of this user."),
        click.option(
            "--error", help="Jobs whose error contains this text, in upper or lower case."
        ),
        click.option(
            "--since",
            callback=when,
            metavar="TIME",
            help='Dead since this time: "2026-11-23T10:00Z", or "2h" ago.',
        ),
        click.option("--until", callback=when, metavar="TIME", help="Dead before this time."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


async def pages(client: AsyncClient, which: DeadFilter, limit: int) -> AsyncIterator[JobView]:
    """Dead jobs, newest first, read page by page."""
    cursor = None
    while limit > 0:
        page = await client.dead_letters(which, limit=min(limit, PAGE), cursor=cursor)
        for view in page:
            yield view
        if len(page) < min(limit, PAGE):
            return
        limit -= len(page)
        dead_at: datetime | None = page[-1].dead_at
        assert dead_at is not None  # noqa: S101 - the dead have one
        cursor = (dead_at, page[-1].id)
