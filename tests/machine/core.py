"""The machine's middle: what every rule has to hand, and the look after every step."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from pgqueue.worker.inflight import RunningAttempt
from pgqueue.worker.lanes import PRIORITIES
from tests.machine import promises
from tests.machine.oracle import Oracle
from tests.machine.stage import LEASE, TIMES, Hands, Look, Stage
from tests.machine.values import AtOnce, Dependency, Kind, Row

MILLISECOND = timedelta(milliseconds=1)

workers = st.integers(0, 2)


class Core(RuleBasedStateMachine):
    """One run: an empty database, three workers, and an oracle that is told of everything."""

    stage: Stage
    tally: Counter[str]
    """How often what was done."""

    def __init__(self) -> None:
        super().__init__()
        stage = self.stage
        stage.empty()
        kinds = {one.job_type: one.declaration(stage.settings) for one in stage.tasks}
        self.oracle = Oracle(
            {
                name: Kind(
                    one.queue,
                    one.max_attempts,
                    one.limit.count if one.limit else None,
                    one.limit.window if one.limit else timedelta(),
                    one.depends_on,
                )
                for name, one in kinds.items()
            }
        )
        self.names = 0
        self.crew = [self.hire(slot) for slot in range(3)]
        self.pairs: list[tuple[str, int, str]] = []
        """Every (id, lease) that was ever handed out, and to whom."""
        self.pending: Row | None = None
        """A job in a transaction that has not committed."""
        self.last: Look = stage.look()
        self.deed = "nothing"
        self.sound = True

    def hire(self, slot: int) -> Hands:
        """A new worker process. The last of the crew knows one job type only."""
        self.names += 1
        known = self.stage.tasks[:1] if slot == 2 else self.stage.tasks[:3]
        return Hands(self.stage, slot, f"w{self.names}", known)

    def begin(self, deed: str) -> None:
        """At the start of every rule: what may change now (promises.py)."""
        self.deed = deed
        self.sound = False
        self.tally["steps"] += 1
        self.tally[deed] += 1

    def now(self) -> datetime:
        moment = self.stage.eye.execute("SELECT clock_timestamp() AS now").fetchone()
        assert moment is not None
        return moment["now"]

    def some_row(self, number: int, *states: str) -> Row | None:
        names = sorted(
            name for name, row in self.oracle.rows.items() if not states or row.status in states
        )
        return self.oracle.rows[names[number % len(names)]] if names else None

    def row_of(self, held: RunningAttempt) -> Row | None:
        """The row of an attempt; None when it has been pruned."""
        return self.oracle.by_id(held.claim.id)

    def mine(self, held: RunningAttempt) -> Row | None:
        """The row, if the attempt still has its lease."""
        row = self.row_of(held)
        return row if row and row.held_by(held.claim.lease) else None

    def busy(self, worker: int) -> Hands:
        """One that has something in hand, if there is one."""
        busy = [hands for hands in self.crew if hands.attempts] or self.crew
        return busy[worker % len(busy)]

    def given(self, hands: Hands, job_id: str, lease: int, now: datetime | None) -> None:
        """An attempt was handed out: never twice under the same lease."""
        row = self.oracle.rows[job_id]
        self.oracle.claim(row, hands.name, now, LEASE)
        assert row.lease == lease
        pair = (row.id, lease)
        assert pair not in [(id, number) for id, number, _ in self.pairs], (
            f"lease {lease} of {job_id} was given twice"
        )
        self.pairs.append((*pair, hands.name))

    def check_started(self, hands: Hands, names: list[str]) -> None:
        """What the worker starts is what the statement changed, and it is told the truth about
        it."""
        assert sorted(held.claim.job_id for held in hands.started) == sorted(names)
        for held in hands.started:
            row = self.oracle.rows[held.claim.job_id]
            claim = held.claim
            assert (claim.id, claim.lease, claim.attempt) == (row.id, row.lease, row.attempt_count)
            assert (claim.queue, claim.user_id, claim.max_attempts) == (
                row.queue,
                row.user_id,
                row.max_attempts,
            )
            assert claim.uncertain is (row.intent_at is not None)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        before, self.last = self.last, self.stage.look()
        self._agree(before.now, self.last)
        promises.check(before, self.last, self.deed)
        promises.check_limits(self.oracle, self.last.now)
        self.sound = True

    def _agree(self, since: datetime, look: Look) -> None:
        """The table is what the oracle says; what only the database could know is taken over."""
        assert set(look.rows) == set(self.oracle.rows), "the jobs that there are"
        assert look.paused == self.oracle.paused
        for job_id, actual in look.rows.items():
            agree(self.oracle.rows[job_id], actual, since, look.now)
        for name, actual in look.broken.items():
            agree_on(self.oracle.broken[name], actual, since, look.now)
        assert set(look.broken) == set(self.oracle.broken), "what is broken"
        keys = {
            hashlib.sha256(job_id.encode()).digest()[:16]: job_id for job_id in self.oracle.graves
        }
        assert set(look.graves) == set(keys), "the ids that are remembered"
        for key, job_id in keys.items():
            grave, actual = self.oracle.graves[job_id], look.graves[key]
            assert actual["outcome"] == grave.outcome
            removed_at = agreed(
                f"{job_id}: removed", grave.ended_at, actual["ended_at"], since, look.now
            )
            self.oracle.graves[job_id] = grave._replace(ended_at=removed_at)

    def advance(self, by: timedelta) -> None:
        """Moves time for all that there is: the database, the workers' cursors, the oracle."""
        self.stage.advance(by, self.crew)
        for row in self.oracle.rows.values():
            for name in TIMES:
                if isinstance(moment := getattr(row, name), datetime):
                    setattr(row, name, moment - by)
            row.history = [
                entry | {"at": entry["at"] - by} if "at" in entry else entry
                for entry in row.history
            ]
        for broken in self.oracle.broken.values():
            if isinstance(broken.probe_at, datetime):
                broken.probe_at -= by
        for job_id, grave in self.oracle.graves.items():
            assert isinstance(grave.ended_at, datetime)
            self.oracle.graves[job_id] = grave._replace(ended_at=grave.ended_at - by)

    def lanes(self, queues: Iterable[str]) -> Iterator[tuple[str, int]]:
        return ((queue, priority) for queue in queues for priority in PRIORITIES)

    def commit_pending(self) -> None:
        self.stage.play(self.stage.slow.commit())
        if self.pending:
            self.oracle.rows[self.pending.job_id] = self.pending
            self.pending = None

    def teardown(self) -> None:
        """Invariant 1: as long as one worker lives, everything that is due ends. All others die,
        and time goes on a little."""
        if not self.sound:
            return
        self.commit_pending()
        self.everything_is_as_it_should_be()
        self.deed = "advance"
        self.advance(timedelta(hours=1))
        self.everything_is_as_it_should_be()
        promises.check_that_one_is_enough(self, self.crew[0])


def agree(row: Row, actual: dict[str, Any], since: datetime, until: datetime) -> None:
    row.id = row.id or str(actual["id"])
    for one in fields(Row):
        believed = getattr(row, one.name)
        match one.name:
            case "digest" | "counted" | "by_holder":
                continue
            case "id":
                found: Any = row.id
                assert str(actual["id"]) == row.id
            case "history":
                row.history = agreed_history(believed, actual["history"] or [], since, until)
                continue
            case _:
                found = actual[one.name]
        setattr(row, one.name, agreed(f"{row.job_id}: {one.name}", believed, found, since, until))


def agree_on(broken: Dependency, actual: dict[str, Any], since: datetime, until: datetime) -> None:
    probe = (str(actual["probe_id"]), actual["probe_lease"]) if actual["probe_id"] else None
    assert (actual["probe_pause"], probe) == (broken.pause, broken.probe)
    assert actual["state"] == ("half_open" if broken.probe else "open")
    broken.probe_at = agreed("probe_at", broken.probe_at, actual["probe_at"], since, until)


def agreed(what: str, believed: Any, found: Any, since: datetime, until: datetime) -> Any:
    """The same; or a moment that fell between the two looks."""
    if isinstance(believed, AtOnce):
        assert found is not None, what
        assert since <= found - believed.later <= until, f"{what} is {found}"
    else:
        assert found == believed, f"{what} is {found!r} and should be {believed!r}"
    return found


def agreed_history(
    believed: list[dict[str, Any]], actual: list[dict[str, Any]], since: datetime, until: datetime
) -> Any:
    entries = []
    assert len(actual) == len(believed), f"{actual} should be {believed}"
    for found, entry in zip(actual, believed, strict=True):
        at = datetime.fromisoformat(found["at"])
        if isinstance(entry.get("at"), AtOnce):
            assert since - MILLISECOND <= at <= until + MILLISECOND
            entry = entry | {"at": at}
        assert found | {"at": at} == {"at": at} | entry
        entries.append(entry)
    return entries
