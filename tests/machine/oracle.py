"""What the queue should be: the same rules as in sql/, once more and without a database."""

import json
from datetime import datetime, timedelta
from typing import Any

from tests.machine.values import DAY, Answer, AtOnce, Dependency, Grave, Item, Kind, Place, Row

FORGOTTEN = "In processing for 24 hours: no more attempts"


def digest_of(job_type: str, user_id: str, payload: dict[str, Any]) -> str:
    return json.dumps([job_type, user_id, payload], sort_keys=True)


class Oracle:
    """All jobs, all tombstones, all paused queues. Each method is what one statement does, when it
    does what it should."""

    def __init__(self, kinds: dict[str, Kind]) -> None:
        self.kinds = kinds
        self.rows: dict[str, Row] = {}
        self.graves: dict[str, Grave] = {}
        self.paused: set[str] = set()
        self.broken: dict[str, Dependency] = {}

    def by_id(self, id: str) -> Row | None:
        return next((row for row in self.rows.values() if row.id == id), None)

    # Producers

    def answers(self, item: Item, *moments: datetime) -> set[Answer]:
        """What may be answered; more than one answer only if a place came free just between these
        moments."""
        known = self.known(item.job_id, digest_of(item.job_type, item.user_id, item.payload))
        if known:
            return {known}
        kind = self.kinds[item.job_type]
        full = [
            kind.limit is not None and len(self.used(item, now)) >= kind.limit for now in moments
        ]
        return {
            Answer(None, False, "rate_limited") if one else Answer("enqueued", True) for one in full
        }

    def known(self, job_id: str, digest: str) -> Answer | None:
        if row := self.rows.get(job_id):
            return (
                Answer(row.status, False)
                if row.digest == digest
                else Answer(None, False, "duplicate_payload")
            )
        if grave := self.graves.get(job_id):
            return (
                Answer(grave.outcome, False)
                if grave.digest == digest
                else Answer(None, False, "duplicate_payload")
            )
        return None

    def used(self, item: Item, now: datetime) -> list[Row]:
        """The jobs that take places in the window of this item's limit."""
        window = self.kinds[item.job_type].window
        return [
            row
            for row in self.rows.values()
            if (row.job_type, row.user_id) == (item.job_type, item.user_id)
            and (isinstance(row.created_at, AtOnce) or row.created_at > now - window)
        ]

    def add(self, item: Item, *, counted: bool = True) -> None:
        kind = self.kinds[item.job_type]
        self.rows[item.job_id] = Row(
            item.job_id,
            item.job_type,
            item.user_id,
            item.payload,
            digest_of(item.job_type, item.user_id, item.payload),
            item.queue or kind.queue,
            5 if item.priority is None else item.priority,
            item.max_attempts or kind.max_attempts,
            AtOnce(item.delay or timedelta()),
            counted=counted,
        )

    # Workers

    def lane(self, queue: str, priority: int) -> list[Row]:
        """Its live rows, in the order in which they are due."""
        rows = [
            row
            for row in self.rows.values()
            if row.live and (row.queue, row.priority) == (queue, priority)
        ]
        return sorted(rows, key=lambda row: row.place)

    def held_back(self, row: Row) -> bool:
        """Neither claimed nor rescued for now."""
        return row.queue in self.paused or self.kinds[row.job_type].depends_on in self.broken

    def due(self, queue: str, priority: int, now: datetime, after: Place) -> list[Row]:
        """What a claim from that cursor may take of a lane."""
        rows = [
            row for row in self.lane(queue, priority) if row.waiting and not self.held_back(row)
        ]
        return [row for row in rows if after < row.place and row.place[0] <= now]

    def claim(self, row: Row, worker: str, now: datetime | None, lease: timedelta) -> None:
        if row.running:
            self._blame(row)
        row.status, row.locked_by, row.by_holder = "processing", worker, False
        row.attempt_count += 1
        row.lease += 1
        row.started_at = now or AtOnce()
        row.lease_until = now + lease if now else AtOnce(lease)

    def bury(self, row: Row, now: datetime) -> None:
        """The sweep's, and the 24-hour rule's: whoever has the job loses the lease first."""
        self._blame(row, forgotten=row.forgotten(now) and not row.expired(now))
        row.lease += 1
        row.by_holder = False
        row.end("dlq")

    def give_up_lease(self, row: Row) -> None:
        """What a sweep does for what is held back."""
        self._blame(row)
        row.status, row.lease_until, row.by_holder = "failed", None, False
        row.lease += 1

    def _blame(self, row: Row, *, forgotten: bool = False) -> None:
        ran_out = (
            f"The lease of attempt {row.attempt_count} ran out: its worker {row.locked_by} died "
            "or lost the database"
        )
        row.error = FORGOTTEN if forgotten else ran_out
        if row.intent_at is not None:
            row.error += ", and what it had announced may have been done"
        row.tell(attempt=row.attempt_count, worker=row.locked_by, error=row.error)

    def complete(self, row: Row, receipt: str | None) -> None:
        row.error = row.stack_trace = row.intent_at = None
        row.receipt, row.by_holder = receipt, True
        row.end("completed")

    def fail(
        self,
        row: Row,
        status: str,
        delay: timedelta | None,
        error: str | None,
        stack: str | None,
        *,
        certain: bool,
    ) -> None:
        row.intent_at = None if certain else row.intent_at
        if error is not None:
            if status != "enqueued":
                row.tell(attempt=row.attempt_count, worker=row.locked_by, error=error, stack=stack)
            row.error, row.stack_trace = error, stack
        if delay is not None:
            row.run_after = AtOnce(delay)
        row.by_holder = True
        match status:
            case "enqueued":
                row.wait()
            case "dlq":
                row.end("dlq")
            case _:
                row.status, row.lease_until = "failed", None

    def shelve(self, row: Row, *moments: datetime) -> None:
        last = row.history[-1] if row.history else {}
        since, times = (
            (last["at"], last["times"]) if last.get("event") == "no handler" else (None, 0)
        )
        over = {since is not None and since <= now - DAY for now in moments}
        assert len(over) == 1, "the 24 hours ended just now: as good as impossible"
        row.history = row.history[:-1] if since else row.history
        row.tell(event="no handler", times=times + 1, worker=row.locked_by, at=since or AtOnce())
        row.wait()
        row.run_after = AtOnce(min(timedelta(seconds=2 ** min(times, 10)), timedelta(minutes=5)))
        row.error, row.by_holder = f"no handler for {row.job_type}", True
        if over == {True}:
            row.end("dlq")

    def orphans(
        self, worker: str, queues: set[str], held: set[tuple[str, int]], now: datetime
    ) -> list[Row]:
        """What a worker was given by a claim of whose answer it never heard."""
        mine = [
            row
            for row in self.rows.values()
            if row.running and row.locked_by == worker and row.queue in queues
        ]
        return [row for row in mine if row.place[0] <= now and (row.id, row.lease) not in held]

    # The circuit breaker

    def break_down(self, dependency: str) -> None:
        """It is known to be down."""
        self.broken.setdefault(
            dependency, Dependency(timedelta(seconds=5), AtOnce(timedelta(seconds=5)))
        )

    def probe(self, dependency: str, queues: set[str], now: datetime) -> Row | None:
        """The job that is to try it out, if its time has come and no other does so."""
        broken = self.broken.get(dependency)
        if broken is None or not isinstance(broken.probe_at, datetime) or broken.probe_at > now:
            return None
        if (
            broken.probe
            and (at_it := self.by_id(broken.probe[0]))
            and at_it.held_by(broken.probe[1])
            and not at_it.expired(now)
        ):
            return None
        rows = [
            row
            for row in self.rows.values()
            if row.waiting and row.queue in queues - self.paused and row.place[0] <= now
        ]
        rows = [row for row in rows if self.kinds[row.job_type].depends_on == dependency]
        return min(
            rows, key=lambda row: (row.attempt_count > 0, row.priority, row.place), default=None
        )

    def probed(
        self,
        dependency: str,
        attempt: tuple[str, int],
        *,
        alive: bool,
        down: bool,
        retry_after: timedelta | None,
    ) -> None:
        broken = self.broken.get(dependency)
        if broken is None or broken.probe != attempt:
            return
        if alive:
            del self.broken[dependency]
            return
        broken.probe = None
        if down:
            broken.pause = min(broken.pause * 2, timedelta(seconds=15))
        broken.probe_at = AtOnce(
            max(broken.pause, retry_after or timedelta()) if down else timedelta()
        )

    # Operators

    def cancel(self, row: Row) -> None:
        row.lease += 1
        row.by_holder = False
        row.end("cancelled")

    def replay(
        self, row: Row, payload: dict[str, Any] | None = None, later: timedelta = timedelta()
    ) -> None:
        row.tell(
            event="replayed",
            was=row.status,
            error=row.error,
            **({"payload": row.payload} if payload is not None else {}),
        )
        row.payload = row.payload if payload is None else payload
        row.status, row.attempt_count, row.run_after = "enqueued", 0, AtOnce(later)
        row.processed_at = row.dead_at = row.error = row.stack_trace = row.progress = (
            row.progress_note
        ) = row.intent_at = None

    def delete(self, row: Row) -> None:
        row.status, row.dead_at = "cancelled", None

    def prunable(self, row: Row, now: datetime, keep: timedelta, keep_dead: timedelta) -> bool:
        if (
            row.live
            or not isinstance(row.processed_at, datetime)
            or not isinstance(row.created_at, datetime)
        ):
            return False
        old = row.processed_at < now - (keep_dead if row.status == "dlq" else keep)
        return old and row.created_at < now - self.kinds[row.job_type].window

    def remove(self, row: Row) -> None:
        self.graves.setdefault(row.job_id, Grave(row.digest, row.status, AtOnce()))
        del self.rows[row.job_id]
