"""Lanes and their cursors: where the next claim begins to read. Pure bookkeeping; the rules and why they are so: docs/engine.md.

A lane is one queue at one priority. Its cursor is the last (run_after, id) that a claim has dealt with, so that a claim does not
walk again over the dead index entries of everything done before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

Place = tuple[datetime, UUID]

START: Place = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))
"""Before every job (and inside what both Python and Postgres can write)."""

LAST_ID = UUID(int=2**128 - 1)

GRACE = timedelta(milliseconds=250)
"""How long a commit may take after its job's run_after was set, and still be seen by claims rather than by a sweep."""

PRIORITIES = range(10)
WAITING_SHARE = 0.1
"""The part of each claim that goes to a lane that waits behind fuller ones."""


@dataclass(slots=True)
class Lane:
    queue: str
    priority: int
    cursor: Place = START
    starving: bool = False
    """The last claims did not reach it: those before it filled them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one claim reads: lanes in order, and at most how many jobs of each."""

    lanes: Sequence[Lane]
    limits: Sequence[int]


class Lanes:
    """All lanes of one worker, in the order of their priorities within each queue."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.all = [Lane(queue, priority) for queue in queues for priority in PRIORITIES]
        self._credit: dict[str, float] = {}

    def plan(self, free: dict[str, int]) -> Plan:
        """The lanes of the queues that have free slots. One starving lane of each queue goes first with its fixed
        share; served, it is no longer the one that starves, and the next has its turn."""
        lanes: list[Lane] = []
        limits: list[int] = []
        for queue, count in free.items():
            mine = [lane for lane in self.all if lane.queue == queue]
            waiting = next((lane for lane in mine if lane.starving), None)
            share = self._share(queue, count) if waiting else 0
            if waiting and share:
                mine.remove(waiting)
                lanes.append(waiting)
                limits.append(share)
            lanes += mine
            limits += [count] * len(mine)
        return Plan(lanes, limits)

    def _share(self, queue: str, count: int) -> int:
        credit = self._credit.get(queue, 0.0) + count * WAITING_SHARE
        share = min(int(credit), count)
        self._credit[queue] = min(credit - share, 1.0)
        return share

    def claimed(
        self, plan: Plan, taken: dict[int, tuple[int, Place]], free: dict[str, int], now: datetime, paused: Sequence[str]
    ) -> bool:
        """Moves the cursors after a claim. `taken` maps the index of a lane in the plan to how many jobs it gave and the last of
        them. True when the claim was full for some queue, so that there may be more at once."""
        more = False
        left = {queue: 0 if queue in paused else count for queue, count in free.items()}
        for index, (lane, most) in enumerate(zip(plan.lanes, plan.limits, strict=True)):
            count, last = taken.get(index, (0, None))
            reached = left[lane.queue] > 0
            if last is not None and (count >= most or count >= left[lane.queue]):
                lane.cursor = last
                more = True
            elif reached:
                lane.cursor = max(lane.cursor, (now - GRACE, LAST_ID))
            left[lane.queue] -= count
            lane.starving = not reached and lane.queue not in paused
        for lane in self.all:
            if lane.cursor[0] > now:
                lane.cursor = START
        return more

    def rewind(self, lanes: Iterable[Lane] | None = None) -> None:
        """Back to the lane's start: after a reconnect, and where a sweep left something behind."""
        for lane in self.all if lanes is None else lanes:
            lane.cursor = START
