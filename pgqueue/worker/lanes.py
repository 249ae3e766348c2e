"""Lanes and their cursors: where the next claim begins to read. Pure bookkeeping; the rules and why
they are so: docs/concepts/engine.md.

A lane is one queue at one priority. Its cursor is the last (run_after, id) that a claim has dealt
with, so that a claim does not walk again over the dead index entries of everything done before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Place = tuple[datetime, str]

START: Place = (datetime(1, 1, 2, tzinfo=UTC), "00000000-0000-0000-0000-000000000000")
"""Before every job (and inside what both Python and Postgres can write)."""

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

GRACE = timedelta(milliseconds=250)
"""How long a commit may take after its job's run_after was set, and still be seen by claims rather
than by a sweep."""

PRIORITIES = range(10)
WAITING_SHARE = 0.1
"""The part of each claim that goes to a lane that waits behind fuller ones."""


REST = 10
"""Claims for which a lane that was found empty gets no share of its own."""


@dataclass(slots=True)
class Lane:
    queue: str
    priority: int
    cursor: Place = START
    starving: bool = False
    """The last claim did not reach it: the lanes before it filled that."""
    reached: int = -1000
    """The number of the last claim that did."""
    gave: bool = False
    """It had jobs then."""


@dataclass(frozen=True, slots=True)
class Room:
    """Free slots of a queue, and the lanes that may fill them, in order."""

    queue: str
    free: int
    lanes: Sequence[Lane]


Taken = Mapping[tuple[int, int], tuple[int, Place]]
"""(room, lane within it), both from 0 -> how many jobs the lane gave, and the last of them."""


class Lanes:
    """All lanes of one worker, in the order of their priorities within each queue."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.all = [Lane(queue, priority) for queue in queues for priority in PRIORITIES]
        self._credit: dict[str, float] = {}
        self._claims = 0

    def plan(self, free: Mapping[str, int]) -> list[Room]:
        """What one claim reads: a room per queue with free slots; before it, when lanes of the
        queue starve, a room for those with their fixed share, the one that has waited longest
        first."""
        rooms: list[Room] = []
        for queue, count in free.items():
            mine = [lane for lane in self.all if lane.queue == queue]
            waiting = sorted(
                (lane for lane in mine if lane.starving), key=lambda lane: lane.reached
            )
            share = self._share(queue, count) if waiting else 0
            if share:
                rooms.append(Room(queue, share, waiting))
                mine = [lane for lane in mine if not lane.starving]
            if count > share:
                rooms.append(Room(queue, count - share, mine))
        return rooms

    def _share(self, queue: str, count: int) -> int:
        credit = self._credit.get(queue, 0.0) + count * WAITING_SHARE
        share = min(int(credit), count)
        self._credit[queue] = min(credit - share, 1.0)
        return share

    def claimed(
        self, rooms: Sequence[Room], taken: Taken, now: datetime, paused: Sequence[str]
    ) -> bool:
        """Moves the cursors after a claim. True when a room was filled, so that there may be more
        at once."""
        more = False
        self._claims += 1
        for number, room in enumerate(rooms):
            if room.queue in paused:
                continue
            left = room.free
            for position, lane in enumerate(room.lanes):
                count, last = taken.get((number, position), (0, START))
                if left == 0:
                    # One that was empty just now is not thought to starve: its share would only be
                    # wasted.
                    lane.starving = lane.gave or self._claims - lane.reached > REST
                    continue
                lane.starving, lane.gave, lane.reached = False, count > 0, self._claims
                left -= count
                lane.cursor = last if left == 0 else max(lane.cursor, (now - GRACE, LAST_ID))
            more = more or left == 0
        for lane in self.all:
            if lane.cursor[0] > now:
                lane.cursor = START
        return more

    def rewind(self, lanes: Iterable[Lane] | None = None) -> None:
        """Back to the lane's start: after a reconnect, and where a sweep left something behind."""
        for lane in self.all if lanes is None else lanes:
            lane.cursor = START
