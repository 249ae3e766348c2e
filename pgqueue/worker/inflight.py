"""In-flight attempts of one worker, and the free slots of each queue."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pgqueue.attempt import Claim
from pgqueue.worker.refusals import LeftOutRows

MAX_WITHOUT_SLOT = 500
"""Attempts of one worker that have ended, hold no slot, and whose outcomes the database refuses.
Where it refuses every outcome, no more jobs than these and the slots run without one."""


@dataclass(slots=True, eq=False)
class RunningAttempt:
    """One in-flight attempt. Times are of the monotonic clock, in seconds."""

    claim: Claim
    extended_at: float
    """When the statement was sent that last extended the lease. The lease holds for at least
    `lease` from then."""
    task: "asyncio.Task[None] | None" = None
    lost: str | None = None
    """Why the lease is gone. What the handler still does has no effect on the job."""
    begun: bool = False
    """The handler was called, or is about to be."""
    released: bool = False
    """The worker stops, and returns this job to its queue."""
    deadline: float = 0.0
    """When the handler times out."""
    overdue: bool = False
    stopped_at: float = 0.0
    """When it was cancelled: its time was over, or its lease gone."""
    abandoned: bool = False
    """It did not stop after it was cancelled. Its outcome was written without it."""
    completing: bool = False
    """The handler's own transaction completes the job. From then on only the lease check in the
    database decides whether the completion counts."""
    completed: bool = False
    """That transaction was committed."""
    claimed_at: float = 0.0
    """When the claim was sent."""
    started_at: float = 0.0
    finished_at: float = 0.0
    without_slot: bool = False
    """It has ended, and gave its slot back before its outcome was written."""


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
    """The slots of each queue, and the attempts that fill them. A slot becomes free when the ack of
    its attempt is committed, or is refused."""

    slots: dict[str, int]
    worker: str
    """The name in `locked_by`. Row, lease and worker identify an attempt in every write."""
    attempts: dict[str, RunningAttempt] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    left_out: LeftOutRows = field(default_factory=LeftOutRows)
    """Rows that claims and sweeps skip, because the database refuses to change them."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a slot becomes free."""
    kept: dict[str, int] = field(default_factory=dict)
    """Slots reserved for the next sweep, which found expired leases and no slot to start their jobs
    in."""
    taken_at: float = -math.inf
    """When the last claim that returned a job was sent."""
    _used: dict[str, int] = field(default_factory=dict)
    _without_slot: int = 0
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

    def take(self, claim: Claim, claimed_at: float) -> RunningAttempt:
        held = RunningAttempt(claim, claimed_at, claimed_at=claimed_at)
        self.taken_at = claimed_at
        if before := self.attempts.get(claim.id):
            self.lose(before, "its job was claimed again")
        self.attempts[claim.id] = held
        self._used[claim.queue] = self._used.get(claim.queue, 0) + 1
        if claim.rescued:
            self._rescued.add(claim.id)
            self.counters.rescued += 1
        return held

    def drop(self, held: RunningAttempt) -> None:
        claim = held.claim
        if self.attempts.get(claim.id) is held:
            del self.attempts[claim.id]
        if held.without_slot:
            self._without_slot -= 1
        else:
            self._used[claim.queue] -= 1
        self._rescued.discard(claim.id)
        self.changed.set()

    def free_slot(self, held: RunningAttempt) -> None:
        """Give back the slot of an attempt whose outcome the database refuses, while there are
        fewer than MAX_WITHOUT_SLOT of them. The attempt stays in flight: its lease is extended and
        its outcome sent again. Otherwise such attempts could fill all slots, and hold up all other
        jobs."""
        if not held.without_slot and self._without_slot < MAX_WITHOUT_SLOT:
            held.without_slot = True
            self._without_slot += 1
            self._used[held.claim.queue] -= 1
            self.changed.set()

    def lose(self, held: RunningAttempt, why: str) -> None:
        """Cancel an attempt whose lease is lost or may be. An attempt that has ended is left to its
        ack, which checks the lease in the database."""
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
        """Reserve `wanted` slots for the next sweep: at most a tenth of the queue's, at least one
        of them. 0 ends the reservation."""
        self.kept[queue] = min(wanted, max(1, self.slots[queue] // 10))
        self.changed.set()

    def may_rescue(self, now: float, survived: float) -> bool:
        """Whether each job of the last rescued group has ended, or has run for `survived`
        seconds."""
        return all(
            now - self.attempts[id].started_at > survived
            for id in self._rescued
            if id in self.attempts
        )
