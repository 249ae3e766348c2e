"""What the oracle deals in: a job as a row of plain Python values, and what else there is in the
queue.

Time is the database's. A time that a statement will have set by itself is not known beforehand: the
oracle says `AtOnce()`, and the next look at the table checks that the time fell between the two
looks, and takes it over.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

DAY = timedelta(hours=24)
ENDED = ("completed", "dlq", "cancelled")
Place = tuple[datetime, str]


class AtOnce(NamedTuple):
    """The moment of the statement that is under way, and so much."""

    later: timedelta = timedelta()


Moment = datetime | AtOnce


class Answer(NamedTuple):
    """What an enqueue answers: status (None when refused), created, and why it was refused."""

    status: str | None
    created: bool
    refusal: str | None = None


class Kind(NamedTuple):
    """A job type."""

    queue: str
    max_attempts: int
    limit: int | None = None
    window: timedelta = timedelta()
    depends_on: str | None = None


class Item(NamedTuple):
    """What a producer sends."""

    job_type: str
    payload: dict[str, Any]
    job_id: str
    user_id: str
    queue: str | None = None
    priority: int | None = None
    delay: timedelta | None = None
    max_attempts: int | None = None


class Grave(NamedTuple):
    """A tombstone."""

    digest: str
    outcome: str
    ended_at: Moment
    """When the row was removed: until then it knew the id by itself."""


@dataclass
class Dependency:
    """The circuit breaker of what jobs depend on, while it is not closed."""

    pause: timedelta
    probe_at: Moment
    probe: tuple[str, int] | None = None
    """Row and lease of the job that tries it out (half open)."""


@dataclass
class Row:
    """One row of job_logs. `id` is known from the first look on."""

    job_id: str
    job_type: str
    user_id: str
    payload: dict[str, Any]
    digest: str
    queue: str
    priority: int
    max_attempts: int
    run_after: Moment
    id: str = ""
    created_at: Moment = AtOnce()
    status: str = "enqueued"
    attempt_count: int = 0
    lease: int = 0
    started_at: Moment | None = None
    lease_until: Moment | None = None
    processed_at: Moment | None = None
    dead_at: Moment | None = None
    locked_by: str | None = None
    error: str | None = None
    stack_trace: str | None = None
    progress: float | None = None
    progress_note: str | None = None
    intent_at: Moment | None = None
    receipt: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    counted: bool = True
    """Came through a function that knows the limit; a bare INSERT does not."""
    by_holder: bool = False
    """The last attempt was ended by the worker that held its lease."""

    @property
    def live(self) -> bool:
        return self.status not in ENDED

    @property
    def waiting(self) -> bool:
        return self.status in ("enqueued", "failed")

    @property
    def running(self) -> bool:
        return self.status == "processing"

    @property
    def place(self) -> Place:
        assert isinstance(self.run_after, datetime)
        return self.run_after, self.id

    def expired(self, now: datetime) -> bool:
        return isinstance(self.lease_until, datetime) and self.lease_until <= now

    def forgotten(self, now: datetime) -> bool:
        return isinstance(self.started_at, datetime) and self.started_at <= now - DAY

    def held_by(self, lease: int) -> bool:
        return self.running and self.lease == lease

    def tell(self, **entry: Any) -> None:
        self.history = [*self.history, entry][-20:]

    def wait(self) -> None:
        """Back to the queue; the attempt was not one."""
        self.status = "failed" if self.attempt_count > 1 else "enqueued"
        self.attempt_count -= 1
        self.lease_until = None

    def end(self, status: str) -> None:
        """Whoever ends it has ended the lease, or holds it."""
        self.status, self.lease_until, self.processed_at = status, None, AtOnce()
        self.dead_at = AtOnce() if status == "dlq" else None
