"""In-flight attempts of one worker, and the free slots of each queue."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pgqueue.attempt import Claim
from pgqueue.worker.refusals import Aside


@dataclass(slots=True, eq=False)
class Held:
    """One in-flight attempt. Times are of the monotonic clock, in seconds."""

    claim: Claim
    extended_at: float
    """Before the statement was sent that last made the lease longer: it holds at least `lease` from
    then."""
    task: "asyncio.Task[None] | None" = None
    lost: str | None = None
    """Why the lease is gone. What the handler still does has no effect on the job."""
    begun: bool = False
    """Its handler was called, or is about to be."""
    released: bool = False
    """The worker stops: the attempt is to be given back."""
    deadline: float = 0.0
    """When its handler's time is over."""
    overdue: bool = False
    stopped_at: float = 0.0
    """When it was cancelled: its time was over, or its lease gone."""
    abandoned: bool = False
    """It has not stopped, and its job goes on without it."""
    completing: bool = False
    """Its handler's own transaction completes the job: from then on the fence decides whether it
    counts."""
    completed: bool = False
    """That transaction was committed."""
    claimed_at: float = 0.0
    """Before the claim was sent."""
    started_at: float = 0.0
    finished_at: float = 0.0


@dataclass
class Counters:
    """What this process has done since it started, as `pgqueue workers` shows it."""

    completed: int = 0
    failed: int = 0
    dead: int = 0
    released: int = 0
    leases_lost: int = 0
    stale_writes: int = 0
    rescued: int = 0


@dataclass
class InFlight:
    """The slots of each queue, and who sits in them. A slot is free again only when the attempt's
    ack is committed."""

    slots: dict[str, int]
    worker: str
    """The name under which it claims: with row and lease it says whose attempt a write belongs
    to."""
    held: dict[str, Held] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    aside: Aside = field(default_factory=Aside)
    """Rows that claims and sweeps leave out."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a slot comes free."""
    kept: dict[str, int] = field(default_factory=dict)
    """Slots that claims leave for the next sweep: it found leases that ran out, and no slot to
    start their jobs in."""
    taken_at: float = -math.inf
    """When the last claim was sent that brought a job."""
    _used: dict[str, int] = field(default_factory=dict)
    _rescued: set[str] = field(default_factory=set)

    def free(self, queue: str) -> int:
        """Slots that a claim may fill."""
        return max(0, self._unused(queue) - self.kept.get(queue, 0))

    def _unused(self, queue: str) -> int:
        return max(0, self.slots[queue] - self._used.get(queue, 0))

    @contextmanager
    def reserved(self, most: int, *, sweeping: bool = False) -> Iterator[dict[str, int]]:
        """Up to `most` free slots of each queue, reserved while a statement runs that may
        fill them."""
        taken = {
            queue: min(self._unused(queue) if sweeping else self.free(queue), most)
            for queue in self.slots
        }
        for queue, count in taken.items():
            self._used[queue] = self._used.get(queue, 0) + count
        try:
            yield taken
        finally:
            for queue, count in taken.items():
                self._used[queue] -= count
            self.changed.set()

    def take(self, claim: Claim, claimed_at: float) -> Held:
        held = Held(claim, claimed_at, claimed_at=claimed_at)
        self.taken_at = claimed_at
        if before := self.held.get(claim.id):
            self.lose(before, "its job was claimed again")
        self.held[claim.id] = held
        self._used[claim.queue] = self._used.get(claim.queue, 0) + 1
        if claim.rescued:
            self._rescued.add(claim.id)
            self.counters.rescued += 1
        return held

    def drop(self, held: Held) -> None:
        claim = held.claim
        if self.held.get(claim.id) is held:
            del self.held[claim.id]
        self._used[claim.queue] -= 1
        self._rescued.discard(claim.id)
        self.changed.set()

    def lose(self, held: Held, why: str) -> None:
        """There is proof, or reason to fear, that the lease is gone: stops the attempt. One that
        has ended waits for its ack, which the fence decides."""
        if (
            held.lost is None
            and not held.completing
            and held.task is not None
            and not held.task.done()
        ):
            held.lost = why
            self.counters.leases_lost += 1
            held.task.cancel()

    def keep(self, queue: str, wanted: int) -> None:
        """Leaves up to a tenth of the queue's slots, but one at least, to the next sweep; 0: none
        any more."""
        self.kept[queue] = min(wanted, max(1, self.slots[queue] // 10))
        self.changed.set()

    def may_rescue(self, now: float, survived: float) -> bool:
        """Whether the last group of rescued jobs has ended, or has at least survived that many
        seconds."""
        return all(
            now - self.held[id].started_at > survived for id in self._rescued if id in self.held
        )
