"""The ledger: what producers were promised, what handlers did, and what the database accepted, none
of it by the queue's word.

Producers append the id of each accepted enqueue to a file before they go on; handlers append what
they do to another; triggers of the superuser write down what becomes of each row (ledger.sql).
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import psycopg

SCHEMA = Path(__file__).with_name("ledger.sql").read_text()

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

CLAIMING = timedelta(seconds=0.5)
"""A claim that was under way when its worker was struck may be committed as late as this."""

ENDED = {"completed", "dlq", "cancelled"}


class Event(NamedTuple):
    """One row of ledger.events, in the order of the writes."""

    at: datetime
    job_id: str
    kind: str
    status: str
    lease: int
    taken: bool
    burned: bool
    due: datetime
    writer: str


class Effect(NamedTuple):
    """One line that a handler wrote."""

    what: str
    job_id: str
    attempt: int
    pid: int


@dataclass(frozen=True)
class Ledger:
    """The books as they are now; read anew for each `Ledger`."""

    events: list[Event]
    statuses: Mapping[str, str]
    accepted: frozenset[str]
    effects: list[Effect]

    @cached_property
    def by_job(self) -> Mapping[str, list[Event]]:
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            found[event.job_id].append(event)
        return found

    @cached_property
    def handled(self) -> Mapping[str, int]:
        """How many handlers began, by job."""
        return self._effects("start")

    @cached_property
    def done(self) -> Mapping[str, int]:
        """How many handlers came to their end, by job."""
        return self._effects("end")

    def _effects(self, what: str) -> Mapping[str, int]:
        found: dict[str, int] = defaultdict(int)
        for effect in self.effects:
            found[effect.job_id] += effect.what == what
        return found

    @cached_property
    def successors(self) -> list[tuple[Event, Event | None]]:
        """Every start, with what next became of the row."""
        return [
            (event, following)
            for events in self.by_job.values()
            for event, following in zip(events, [*events[1:], None], strict=True)
            if event.kind == "start"
        ]

    def open_at(self, moment: datetime, writer: str | None = None) -> int:
        """Jobs in flight at a moment, with one worker or with all."""
        return sum(
            one.at <= moment
            and (after is None or after.at > moment)
            and writer in (None, one.writer)
            for one, after in self.successors
        )

    @cached_property
    def undone(self) -> int:
        """Starts that came to nothing: another start followed, or the job was given back and the
        attempt does not count."""
        return sum(
            after is not None and (after.kind == "start" or not after.burned)
            for _, after in self.successors
        )

    @cached_property
    def given_back(self) -> int:
        """Attempts that ended and do not count: each is followed by another start."""
        return sum(event.kind == "end" and not event.burned for event in self.events)

    def left_by(self, writers: Iterable[str]) -> list[Event]:
        """The starts of workers that are gone which they never ended themselves: in flight when
        they went."""
        gone = set(writers)
        return [
            one
            for one, after in self.successors
            if one.writer in gone and (after is None or after.kind == "start" or after.taken)
        ]

    def rescues(self, struck: Iterable[tuple[str, datetime]]) -> dict[int, float]:
        """Start of a job (1: its first) -> the longest time from when its worker (login) was struck
        in it to its next start."""
        longest: dict[int, float] = defaultdict(float)
        for login, moment in struck:
            for one, after in self.successors:
                if (
                    one.writer == login
                    and one.at <= moment + CLAIMING
                    and after
                    and after.kind == "start"
                    and after.at > moment
                ):
                    number = sum(
                        event.kind == "start" and event.lease <= one.lease
                        for event in self.by_job[one.job_id]
                    )
                    longest[number] = max(longest[number], (after.at - moment).total_seconds())
        return longest

    def rescued_after(self, struck: Iterable[tuple[str, datetime]]) -> float:
        """The longest of these."""
        return max(self.rescues(struck).values(), default=0.0)

    def p99(self, since: datetime = FIRST, until: datetime = LAST) -> float:
        """Seconds from enqueue to completion that 99 % of the jobs took which were enqueued in that
        time."""
        took = sorted(
            (events[-1].at - events[0].at).total_seconds()
            for events in self.by_job.values()
            if since < events[0].at <= until and events[-1].status == "completed"
        )
        return round(took[int(len(took) * 0.99)], 3)

    def p100(self, prefix: str) -> float:
        """Seconds from enqueue to completion of the slowest job whose id begins so."""
        took = [
            (events[-1].at - events[0].at).total_seconds()
            for job, events in self.by_job.items()
            if job.startswith(prefix) and events[-1].status == "completed"
        ]
        return round(max(took), 3)

    @cached_property
    def completed_at(self) -> list[datetime]:
        return sorted(
            event.at for event in self.events if event.kind == "end" and event.status == "completed"
        )

    @cached_property
    def enqueued_at(self) -> list[datetime]:
        return sorted(event.at for event in self.events if event.kind == "insert")

    def completions(self, since: datetime, until: datetime) -> int:
        return bisect_right(self.completed_at, until) - bisect_right(self.completed_at, since)

    def resumed_after(self, moment: datetime) -> float:
        """Seconds from a moment to the first job that was completed after it."""
        later = self.completed_at[bisect_right(self.completed_at, moment) :]
        return (later[0] - moment).total_seconds() if later else math.inf

    def speed(self, since: datetime, until: datetime) -> float:
        """Completed jobs a second."""
        return self.completions(since, until) / (until - since).total_seconds()

    def at_speed_after(
        self,
        back: datetime,
        until: datetime,
        speed: float,
        window: timedelta = timedelta(seconds=3),
    ) -> float:
        """Seconds from the end of an outage until jobs are completed at that speed again, or as
        fast as they come in if that is slower, but for 5 %; inf: not until then."""
        moment = back
        while moment + window <= until:
            arrived = bisect_right(self.enqueued_at, moment + window) - bisect_right(
                self.enqueued_at, moment
            )
            if (
                self.speed(moment, moment + window)
                >= 0.95 * min(speed, arrived / window.total_seconds())
                > 0
            ):
                return (moment - back).total_seconds()
            moment += timedelta(seconds=0.1)
        return math.inf


def install(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())


def read(url: str, accepted: Path, effects: Path) -> Ledger:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT at, job_id, kind, status, lease, taken, burned, due, writer FROM "
            "ledger.events ORDER BY seq"
        ).fetchall()
        statuses = dict(connection.execute("SELECT job_id, status FROM job_logs").fetchall())
    return Ledger(
        list(map(Event._make, rows)),
        statuses,
        frozenset(lines(accepted)),
        [
            Effect(what, job, int(attempt), int(pid))
            for what, job, attempt, pid in map(str.split, lines(effects))
        ],
    )


def lines(path: Path) -> list[str]:
    """Whole lines of a file, or of every file in a folder."""
    if path.is_dir():
        return [line for one in sorted(path.iterdir()) for line in lines(one)]
    return path.read_text().splitlines() if path.exists() else []
