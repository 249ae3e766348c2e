"""Rules of sweeps."""

import time
from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule

from pgqueue.worker.claim_rows import probe_from, sweep_from
from tests.machine.core import Core, workers
from tests.machine.stage import LEASE, QUEUES, Hands
from tests.machine.values import AtOnce, Row

Did = dict[str, list[str]]
"""What a sweep did -> to which jobs, in its order."""


class Sweeping(Core):
    @rule(worker=workers, resting=st.booleans())
    def sweep(self, worker: int, resting: bool) -> None:
        hands = self.crew[worker]
        self.begin("sweep")
        free = {queue: hands.empty(queue) for queue in QUEUES}
        may_rescue = hands.worker.inflight.may_rescue(time.monotonic(), LEASE.total_seconds())
        ends = {
            (lane.queue, lane.priority): None if resting or lane.starving else lane.cursor
            for lane in hands.lanes
        }
        self.stage.play(hands.sweep(resting=resting))
        answers = [
            sweep_from(answer)
            for statement, answer in self.stage.heard
            if statement == "sweep_jobs"
        ]
        now = answers[0].now
        rows = [job for answer in answers for job in answer.jobs]
        did: Did = {
            action: [row.job_id for row in rows if row.action == action] for action in ACTIONS
        }
        seen = [
            row
            for lane, end in ends.items()
            for row in self.oracle.lane(*lane)
            if row.place[0] <= now and (end is None or row.place <= end)
        ]
        self._check_taken_away(hands, seen, now, did)
        untouched = [
            row for row in seen if row.job_id not in did["dlq"] and not self.oracle.held_back(row)
        ]
        group = self._check_rescues(hands, untouched, now, did, free, may_rescue)
        self._check_stragglers(untouched, group, did, free)
        for name in did["dlq"]:
            self.oracle.bury(self.oracle.rows[name], now)
        for name in did["release"]:
            self.oracle.give_up_lease(self.oracle.rows[name])
        started = [row for row in rows if row.action in ("claim", "rescue")]
        for row in started:
            self.given(hands, row.job_id, row.lease, now)
        probes = self._check_probe(hands)
        self.check_started(hands, [row.job_id for row in started] + probes)
        self.tally.update({f"swept: {action}": len(names) for action, names in did.items()})

    def _check_probe(self, hands: Hands) -> list[str]:
        """Whoever sweeps sees to it that what is broken is tried out, by one job at a time."""
        (probe,) = [rows for statement, rows in self.stage.heard if statement == "claim_probe"] or [
            []
        ]
        for_it = [probe_from(row).queue for row in probe]
        queues = {queue for queue in QUEUES if hands.empty(queue) + for_it.count(queue) > 0}
        knows = any(self.oracle.kinds[job_type].depends_on for job_type in hands.types)
        wanted = (
            [self.oracle.probe("server", queues, now) for now in (self.last.now, self.now())]
            if knows
            else [None]
        )
        assert bool(probe) in {row is not None for row in wanted}
        for claim in map(probe_from, probe):
            assert claim.job_id in {row.job_id for row in wanted if row}
            self.given(hands, claim.job_id, claim.lease, None)
            self.oracle.broken["server"].probe = (claim.id, claim.lease)
        self.tally["probes"] += len(probe)
        return [self.oracle.rows[name].job_id for name in (probe_from(row).job_id for row in probe)]

    def _check_taken_away(self, hands: Hands, seen: list[Row], now: datetime, did: Did) -> None:
        """Whatever has to be buried or released is, whether or not there is room."""
        out = [row for row in seen if row.expired(now)]
        bury = {
            row.job_id
            for row in seen
            if row.running and row.forgotten(now) and not row.expired(now)
        }
        bury |= {row.job_id for row in out if row.attempt_count >= row.max_attempts}
        release = {
            row.job_id for row in out if self.oracle.held_back(row) and row.job_type in hands.types
        }
        release |= {
            row.job_id for row in out if row.forgotten(now) and row.job_type not in hands.types
        }
        assert set(did["dlq"]) == bury
        assert set(did["release"]) == release - bury

    def _check_rescues(
        self,
        hands: Hands,
        untouched: list[Row],
        now: datetime,
        did: Did,
        free: dict[str, int],
        may_rescue: bool,
    ) -> list[Row]:
        """One group at a time, of those with the fewest attempts, and no larger than these allow.
        Returns who might be in it."""
        suspects = [row for row in untouched if row.expired(now) and row.job_type in hands.types]
        fewest = min((row.attempt_count for row in suspects), default=0)
        group = [row for row in suspects if row.attempt_count == fewest] if may_rescue else []
        rescued = did["rescue"]
        assert set(rescued) <= {row.job_id for row in group}
        assert len(rescued) <= {1: 100, 2: 10}.get(fewest, 1)
        assert rescued or all(free[row.queue] == 0 for row in group), (
            "an expired lease was left although there was room"
        )
        return group

    def _check_stragglers(
        self, untouched: list[Row], group: list[Row], did: Did, free: dict[str, int]
    ) -> None:
        """What is due is claimed, the oldest first, into the room that rescues leave."""
        for queue, count in free.items():
            due = [row.job_id for row in untouched if row.waiting and row.queue == queue]
            claimed = [name for name in did["claim"] if name in due]
            rescued = [name for name in did["rescue"] if self.oracle.rows[name].queue == queue]
            assert len(claimed) + len(rescued) <= count
            assert set(claimed) == set(due[: len(claimed)])
            wanted = sum(row.queue == queue for row in group)
            assert len(claimed) >= min(len(due), count - wanted), (
                "a straggler was left although there was room"
            )
        assert all(self.oracle.rows[name] in untouched for name in did["claim"])

    @rule(worker=workers, other=workers)
    def leases_run_out_and_somebody_sweeps(self, worker: int, other: int) -> None:
        """One worker could extend nothing for the length of a lease; the other may be itself."""
        self.begin("expire")
        for held in self.busy(worker).attempts:
            if row := self.mine(held):
                self.stage.expire(row.job_id)
                row.lease_until = AtOnce(timedelta(seconds=-1))
        self.everything_is_as_it_should_be()
        self.sweep(other, resting=True)


ACTIONS = ("dlq", "release", "rescue", "claim")
