"""Rules of how attempts end: in groups, and also when it is too late."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pgqueue.attempt import Outcome
from pgqueue.errors import Discard, LeaseLost, Retry, Snooze
from pgqueue.job import Status
from pgqueue.policy import Released, spared, verdict
from pgqueue.task import Backoff
from pgqueue.worker.inflight import RunningAttempt
from tests.machine.claiming import Claiming
from tests.machine.core import workers
from tests.machine.stage import LEASE, Hands
from tests.machine.values import AtOnce, Row

ENDINGS: dict[str, BaseException | None] = {
    "returns": None,
    "returns with a receipt": None,
    "fails": RuntimeError("boom"),
    "asks for a retry": Retry(after=90),
    "discards": Discard("no such thing"),
    "snoozes": Snooze("10m", "later"),
    "is released": Released(),
}
endings = st.lists(
    st.sampled_from([*ENDINGS, "returns", "fails", "returns"]), min_size=2, max_size=6
)


class Ending(Claiming):
    @rule(
        worker=workers,
        how=endings,
        lost=st.sampled_from([None, None, None, "ack_jobs", "fail_jobs"]),
    )
    def attempts_end(self, worker: int, how: list[str], lost: str | None) -> None:
        """A group of outcomes, some of them perhaps too late; and perhaps the reply is lost and
        they are sent again."""
        hands = self.busy(worker)
        self.begin("finish")
        outcomes = [
            (held, self._outcome(hands, held, ending))
            for held, ending in zip(hands.attempts, how, strict=False)
        ]
        self.stage.lose_reply_of = lost
        stale = self.stage.play(hands.write(outcomes))
        self.stage.lose_reply_of = None
        now = self.now()
        expected = 0
        for held, outcome in outcomes:
            outcome = self._judged(hands, held, outcome)
            row = self.mine(held)
            if row is None:
                expected += 1
                continue
            self.tally[f"ended: {outcome.status if outcome else 'shelved'}"] += 1
            self._end(row, held, outcome, now)
        self.tally["too late"] += expected
        assert stale == expected, "outcomes that met no row"

    def _outcome(self, hands: Hands, held: RunningAttempt, ending: str) -> Outcome | None:
        if held.claim.job_type not in hands.types:
            return None
        depends_on = self.oracle.kinds[held.claim.job_type].depends_on
        if ending == "returns with a receipt":
            return Outcome(Status.COMPLETED, receipt="250 ok")
        if depends_on and not held.claim.probe and ending in ("fails", "asks for a retry"):
            ending = (
                "discards"  # else five of them would open the breaker: that is told by other tests
            )
        return verdict(held.claim, ENDINGS[ending], Backoff(2), 0.5, depends_on)

    def _judged(
        self, hands: Hands, held: RunningAttempt, outcome: Outcome | None
    ) -> Outcome | None:
        """What the breaker makes of it: a probe decides, and its failure is not the job's."""
        if not held.claim.probe or outcome is None:
            return outcome
        down = outcome.dependency == held.claim.probe
        alive = outcome.status is Status.COMPLETED
        attempt = held.claim.id, held.claim.lease
        self.oracle.probed(
            held.claim.probe, attempt, alive=alive, down=down, retry_after=outcome.retry_after
        )
        self.tally[f"probe: {'alive' if alive else 'down' if down else 'unclear'}"] += 1
        # Open still, or closed since the probe began.
        return spared(outcome, probe=True) if down else outcome

    def _end(self, row: Row, held: RunningAttempt, outcome: Outcome | None, now: datetime) -> None:
        if outcome is None:
            self.oracle.shelve(row, self.last.now, now)
        elif outcome.status == "completed":
            self.oracle.complete(row, outcome.receipt)
        else:
            certain = outcome.certain and not held.claim.uncertain
            self.oracle.fail(
                row,
                str(outcome.status),
                outcome.delay,
                outcome.error,
                outcome.stack_trace,
                certain=certain,
            )

    @rule(worker=workers, how=endings)
    def claim_and_end(self, worker: int, how: list[str]) -> None:
        """What most of the time happens."""
        self.claim(worker)
        self.everything_is_as_it_should_be()
        self.attempts_end(worker, how, None)

    @rule(worker=workers)
    def extend(self, worker: int) -> None:
        hands = self.busy(worker)
        self.begin("extend")
        held = list(hands.worker.inflight.attempts.values())
        if not held:
            return
        hands.extend(held)
        kept = [one for one in held if self.mine(one)]
        assert {id(one) for one in hands.lost} == {id(one) for one in held if one not in kept}
        for one in kept:
            row = self.mine(one)
            assert row is not None
            row.lease_until = AtOnce(LEASE)
        for one in hands.lost:
            hands.attempts.remove(one)
            hands.worker.inflight.drop(one)
        self.tally["extended"] += len(kept)
        self.tally["told to be lost"] += len(hands.lost)

    @rule(worker=workers, which=st.integers(0, 9), fraction=st.sampled_from([0.25, 0.5]))
    def progress(self, worker: int, which: int, fraction: float) -> None:
        hands = self.busy(worker)
        self.begin("progress")
        if not hands.attempts:
            return
        held = hands.attempts[which % len(hands.attempts)]
        row = self.mine(held)
        try:
            self.stage.play(hands.progress(held, fraction, "on it"))
        except LeaseLost:
            assert row is None
        else:
            assert row is not None
            row.progress, row.progress_note = fraction, "on it"

    @rule(worker=workers, which=st.integers(0, 9))
    def intend(self, worker: int, which: int) -> None:
        """It is about to do what cannot be taken back."""
        hands = self.busy(worker)
        self.begin("intend")
        if not hands.attempts:
            return
        held = hands.attempts[which % len(hands.attempts)]
        row = self.mine(held)
        try:
            self.stage.play(hands.intend(held))
        except LeaseLost:
            assert row is None
        else:
            assert row is not None
            row.intent_at = AtOnce()
            self.tally["intents"] += 1

    def stale_pairs(self) -> list[tuple[str, int, str]]:
        def stale(id: str, lease: int) -> bool:
            row = self.oracle.by_id(id)
            return row is None or not row.held_by(lease)

        return [pair for pair in self.pairs if stale(*pair[:2])]

    @precondition(lambda self: bool(self.pairs))
    @rule(number=st.integers(0, 99))
    def a_stale_worker_tries_everything(self, number: int) -> None:
        self.begin("stale")
        stale = self.stale_pairs()
        if not stale:
            return
        id, lease, worker = stale[-1 - number % len(stale)]
        row = self.oracle.by_id(id)
        one = {"ids": [id], "leases": [lease], "worker": worker}
        for statement, values in stale_writes(id, lease, worker):
            assert self.stage.statement(statement, one | values) == [], statement
        told = self.stage.statement(
            "extend_leases", one | {"lease": LEASE, "alive": True, "ages": [1e6]}
        )
        assert [answer["what"] for answer in told] == ["lost"]
        confirmed = self.stage.statement("confirm_acks", one)
        went_through = row is not None and row.lease == lease
        assert bool(confirmed) is went_through
        assert not went_through or (row and row.by_holder), (
            "somebody took the job away and left the lease"
        )
        self.tally["stale writes tried"] += 9


def stale_writes(id: str, lease: int, worker: str) -> Sequence[tuple[str, dict[str, Any]]]:
    later = {
        "delays": [timedelta(seconds=1)],
        "errors": ["too late"],
        "stack_traces": [None],
        "certain": [True],
    }
    one = {"id": id, "lease": lease, "worker": worker}
    return [
        ("ack_jobs", {"receipts": ["too late"]}),
        *[
            ("fail_jobs", {"statuses": [status]} | later)
            for status in ("failed", "dlq", "enqueued")
        ],
        ("shelve_jobs", {}),
        ("intend_effects", {}),
        ("save_progress", one | {"fraction": 0.9, "note": "too late"}),
        ("complete_job", one | {"receipt": "too late"}),
    ]
