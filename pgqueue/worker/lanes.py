"""Lanes and their cursors: where the next claim begins to read. No I/O; docs/concepts/engine.md has
the rules and their reasons.

A lane is one queue at one priority. Its cursor is the last (run_after, id) that a claim has
read, so that the next claim does not walk over the dead index entries of finished jobs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Place = tuple[datetime, str]

START: Place = (datetime(1, 1, 2, tzinfo=UTC), "00000000-0000-0000-0000-000000000000")
"""Before every job (and inside what both Python and Postgres can write)."""

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

COMMIT_GRACE = timedelta(milliseconds=250)
"""A job whose commit comes at most this long after its run_after was set is found by claims; a
later one by a sweep."""

PRIORITIES = range(10)
WAITING_SHARE = 0.1
"""The share of each claim that goes to lanes which wait behind fuller ones."""


CLAIMS_WITHOUT_SHARE = 10
"""For this many claims after a lane was found empty, it gets no share of its own."""


@dataclass(slots=True)
class Lane:
    queue: str
    priority: int
    cursor: Place = START
    starving: bool = False
    """The last claim did not reach it: the lanes before it used all slots."""
    reached: int = -1000
    """The number of the last claim that reached it."""
    gave: bool = False
    """That claim found jobs in it."""


@dataclass(frozen=True, slots=True)
class Room:
    """Free slots of a queue, and the lanes that may fill them, in order."""

    queue: str
    free: int
    lanes: Sequence[Lane]


Taken = Mapping[tuple[int, int], tuple[int, Place]]
"""(room, lane in the room), both from 0 -> how many jobs were claimed, and the position of the
last."""


class Lanes:
    """All lanes of one worker, in the order of their priorities within each queue."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.all = [Lane(queue, priority) for queue in queues for priority in PRIORITIES]
        self._credit: dict[str, float] = {}
        self._claims = 0

    def plan(self, free: Mapping[str, int]) -> list[Room]:
        """Plan one claim: a room per queue with free slots. If lanes of the queue starve, a room
        with their fixed share comes first, in which the lane that has waited longest is the
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
        """Move the cursors after a claim. Returns whether a room was filled: then more jobs may be
        due."""
        more = False
        self._claims += 1
        for number, room in enumerate(rooms):
            if room.queue in paused:
                continue
            left = room.free
            for position, lane in enumerate(room.lanes):
                count, last = taken.get((number, position), (0, START))
                if left == 0:
                    # A lane that was found empty a few claims ago does not count as starving: a
                    # share for it would be wasted.
                    lane.starving = lane.gave or self._claims - lane.reached > CLAIMS_WITHOUT_SHARE
                    continue
                lane.starving, lane.gave, lane.reached = False, count > 0, self._claims
                left -= count
                lane.cursor = last if left == 0 else max(lane.cursor, (now - COMMIT_GRACE, LAST_ID))
            more = more or left == 0
        for lane in self.all:
            if lane.cursor[0] > now:
                lane.cursor = START
        return more

    def rewind(self, lanes: Iterable[Lane] | None = None) -> None:
        """Move cursors back to the start of their lanes: after a reconnect, and when a sweep has
        left due jobs behind a cursor."""
        for lane in self.all if lanes is None else lanes:
            lane.cursor = START
