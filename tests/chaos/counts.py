"""What one fault came to, in exact counts, and whether that is as promised."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.ledger import ENDED, Ledger


@dataclass(frozen=True, kw_only=True)
class Counts:
    """`sound()` raises AssertionError unless nothing was lost or doubled, and no more was started
    twice than was in flight."""

    what: str
    faults: int
    """How often the fault struck."""
    jobs: int
    """Enqueues that the producers were told are accepted."""
    lost: int
    doubled: int
    stale_accepted: int
    """Outcomes that the database took from somebody who did not hold the job."""
    stale_refused: int
    duplicate_starts: int
    in_flight: int
    """Jobs in flight at the faults: as many may be started twice."""
    recovery: float | None
    """Seconds; what is measured stands in `what`."""
    figures: dict[str, Any] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    def sound(self) -> None:
        assert (self.lost, self.doubled, self.stale_accepted) == (0, 0, 0), self
        assert self.duplicate_starts <= self.in_flight, self
        assert self.jobs > 0, self

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def count(
    ledger: Ledger,
    *,
    what: str,
    faults: int,
    in_flight: int,
    stale_refused: int = 0,
    recovery: float | None = None,
    handled: bool = True,
    logins: bool = True,
    **figures: Any,
) -> Counts:
    """`handled`: the handlers write down what they do; `logins`: every worker has a login of its
    own."""
    lost = sorted(job for job in ledger.accepted if not _ended(ledger, job, handled))
    doubled = sorted(job for job in ledger.by_job if _completions(ledger, job) > 1)
    stale = (
        [after for one, after in ledger.successors if after and _by_another(one, after)]
        if logins
        else []
    )
    trouble = [f"lost: {_story(ledger, job)}" for job in lost]
    trouble += [f"doubled: {_story(ledger, job)}" for job in doubled]
    trouble += [f"stale: {_story(ledger, event.job_id)}" for event in stale]
    again = {job: times for job in ledger.by_job if (times := _started_again(ledger, job))}
    if sum(again.values()) > in_flight:
        trouble += [f"started again: {_story(ledger, job)}" for job in again]
    return Counts(
        what=what,
        faults=faults,
        jobs=len(ledger.accepted),
        lost=len(lost),
        doubled=len(doubled),
        stale_accepted=len(stale),
        stale_refused=stale_refused,
        duplicate_starts=sum(again.values()),
        in_flight=in_flight,
        recovery=None if recovery is None else round(recovery, 3),
        figures=figures | {"ended": _endings(ledger)},
        trouble=tuple(trouble[:10]),
    )


def _ended(ledger: Ledger, job: str, handled: bool) -> bool:
    """Whether it ended, and completed only if a handler came to its end."""
    status = ledger.statuses.get(job)
    return status in ENDED and (status != "completed" or not handled or ledger.done[job] > 0)


def _completions(ledger: Ledger, job: str) -> int:
    return sum(event.kind == "end" and event.status == "completed" for event in ledger.by_job[job])


def _by_another(start: Any, end: Any) -> bool:
    return bool(end.kind == "end" and not end.taken and end.writer != start.writer)


def _started_again(ledger: Ledger, job: str) -> int:
    """How often a handler began that should not have: once is right, once more after each failure
    and each replay."""
    events = ledger.by_job[job]
    failures = sum(
        event.kind == "end" and event.status == "failed" and event.burned and not event.taken
        for event in events
    )
    replays = sum(event.kind == "other" and event.status == "enqueued" for event in events)
    return max(0, ledger.handled[job] - 1 - failures - replays)


def _endings(ledger: Ledger) -> dict[str, int]:
    statuses = [ledger.statuses.get(job, "gone") for job in ledger.accepted]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def _story(ledger: Ledger, job: str) -> str:
    told: Iterable[str] = (
        f"{event.at:%M:%S.%f} {event.kind} {event.status} lease {event.lease} by {event.writer}"
        for event in ledger.by_job[job]
    )
    return (
        f"{job} is {ledger.statuses.get(job)}, handled {ledger.handled[job]}, done "
        f"{ledger.done[job]}: "
    ) + "; ".join(told)
