"""Rules of claims; and of those whose reply is lost."""

import contextlib
from datetime import datetime

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import rule

from pgqueue.worker.claim_rows import answer_from, claim_from
from pgqueue.worker.lanes import START
from tests.machine.core import Core, workers
from tests.machine.stage import QUEUES, Hands
from tests.machine.values import Place, Row

Cursors = dict[tuple[str, int], Place]


def cursors_of(hands: Hands) -> Cursors:
    return {(lane.queue, lane.priority): lane.cursor for lane in hands.lanes}


class Claiming(Core):
    @rule(worker=workers)
    def claim(self, worker: int) -> None:
        hands = self.crew[worker]
        self.begin("claim")
        free = {queue: hands.free(queue) for queue in QUEUES if hands.free(queue) > 0}
        before = cursors_of(hands)
        starving = any(lane.starving for lane in hands.lanes)
        more, next_due = self.stage.play(hands.claim())
        if not free:
            assert not self.stage.heard
            return
        names, now = self._claimed(hands, free, before)
        self.check_started(hands, names)
        self._check_cursors(hands, before, now)
        left = self._left(free, before, now)
        assert more or not left, (
            f"it said that there was no more, and left {[row.job_id for row in left]}"
        )
        assert starving or all(hands.free(row.queue) == 0 for row in left), (
            "it left what it had room for"
        )
        if next_due is not None:
            served = [lane for lane in self.lanes(free) if lane[0] not in self.oracle.paused]
            later = [
                row.place[0]
                for lane in served
                for row in self.oracle.lane(*lane)
                if row.place[0] > now
            ]
            assert next_due == (min(later) - now).total_seconds()

    def _claimed(
        self, hands: Hands, free: dict[str, int], before: Cursors
    ) -> tuple[list[str], datetime]:
        """Takes over what the statement took, having checked that it could, and in which order."""
        ((_, rows),) = self.stage.heard
        answer = answer_from(rows)
        now = answer.now
        taken = [claim_from(row, "") for row in answer.jobs]
        names = [claim.job_id for claim in taken]
        assert {self.oracle.rows[name].queue for name in names} <= free.keys() - self.oracle.paused
        for queue, count in free.items():
            assert sum(self.oracle.rows[name].queue == queue for name in names) <= count
        for queue, priority in self.lanes(free):
            due = [
                row.job_id for row in self.oracle.due(queue, priority, now, before[queue, priority])
            ]
            mine = [self.oracle.rows[name] for name in names]
            lane = [row.job_id for row in mine if (row.queue, row.priority) == (queue, priority)]
            assert lane == due[: len(lane)], f"of {due} it took {lane}"
        for claim in taken:
            self.given(hands, claim.job_id, claim.lease, now)
        self.tally["claimed"] += len(taken)
        return names, now

    def _left(self, free: dict[str, int], before: Cursors, now: datetime) -> list[Row]:
        """What is due beyond the cursors, in queues that were to be claimed from."""
        served = [lane for lane in self.lanes(free) if lane[0] not in self.oracle.paused]
        return [row for lane in served for row in self.oracle.due(*lane, now, before[lane])]

    def _check_cursors(self, hands: Hands, before: Cursors, now: datetime) -> None:
        """A cursor passes nothing that is due and was not taken."""
        after = cursors_of(hands)
        passed = [
            row
            for row in self._left(dict.fromkeys(QUEUES, 1), before, now)
            if row.place <= after[row.queue, row.priority]
        ]
        assert not passed

    @rule(worker=workers, reconnects=st.booleans())
    def claim_without_hearing_of_it(self, worker: int, reconnects: bool) -> None:
        """The reply is lost. The worker gives back what it was given; or dies, and the leases run
        out."""
        hands = self.crew[worker]
        self.begin("orphans")
        free = {queue: hands.free(queue) for queue in QUEUES if hands.free(queue) > 0}
        if not free:
            return
        before = cursors_of(hands)
        self.stage.lose_reply_of = "claim_jobs"
        with contextlib.suppress(psycopg.OperationalError):
            self.stage.play(hands.claim())
        self._claimed(hands, free, before)
        if not reconnects:
            self.crew[worker] = self.hire(hands.slot)
            return
        held = {(id, one.claim.lease) for id, one in hands.worker.inflight.attempts.items()}
        orphans = self.oracle.orphans(hands.name, set(QUEUES), held, self.now())
        self.stage.play(hands.forget_replies())
        for row in orphans:
            row.wait()
            row.by_holder = True
        self.tally["orphans given back"] += len(orphans)
        assert all(cursor == START for cursor in cursors_of(hands).values())
