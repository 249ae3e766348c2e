"""Rules of operators, of retention, and of time."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pgqueue.database.retention import prune
from pgqueue.errors import JobNotFound, WrongState
from pgqueue.job import DeadFilter
from tests.machine.stage import QUEUES
from tests.machine.sweeping import Sweeping
from tests.machine.values import AtOnce, Row

numbers = st.integers(0, 99)

SPANS = [
    *(timedelta(minutes=n) for n in (1, 1, 3, 25, 25)),
    timedelta(hours=3),
    timedelta(hours=25),
    timedelta(days=4),
]


class Operating(Sweeping):
    def change(self, deed: str, row: Row | None, what: Any, states: tuple[str, ...]) -> bool:
        """Whether it was done; if not, the reason must be the row's state."""
        self.begin(deed)
        try:
            self.stage.play(what)
        except WrongState as error:
            found = error.status
        except JobNotFound:
            found = None
        else:
            found = "changed"
        if found != "changed":
            assert found == (row and row.status)
            assert found not in states
            return False
        assert row is not None
        assert row.status in states
        self.tally[f"{deed} done"] += 1
        return True

    @rule(
        verb=st.sampled_from(["cancel", "replay", "replay", "replay many", "delete"]),
        number=numbers,
        other=st.booleans(),
    )
    def operate(self, verb: str, number: int, other: bool) -> None:
        states = {"delete": ("dlq",), "cancel": ("enqueued", "failed", "processing")}.get(
            verb, ("dlq", "cancelled")
        )
        row = self.some_row(number, *states) if number % 4 else self.some_row(number)
        job_id = row.job_id if row else "none"
        client, oracle = self.stage.client, self.oracle
        match verb:
            case "cancel":
                if self.change("cancel", row, client.cancel(job_id), states) and row:
                    oracle.cancel(row)
            case "replay":
                payload = {"n": 3} if other else None
                if self.change("replay", row, client.replay(job_id, payload), states) and row:
                    oracle.replay(row, payload)
            case "delete":
                if self.change("delete", row, client.delete_dead(job_id), states) and row:
                    oracle.delete(row)
            case _:
                self._replay_many("m.plain" if other else None, 1 + number % 3)

    def _replay_many(self, job_type: str | None, limit: int) -> None:
        self.begin("replay")
        dead = [
            row
            for row in self.oracle.rows.values()
            if row.status == "dlq" and job_type in (None, row.job_type)
        ]
        dead.sort(key=lambda row: (row.dead_at, row.id))
        which = DeadFilter(job_type=job_type)
        done = self.stage.play(self.stage.client.replay_many(which, rate=4, limit=limit))
        assert (done.retried, done.matched, done.remaining) == (
            min(limit, len(dead)),
            len(dead),
            max(0, len(dead) - limit),
        )
        for nth, row in enumerate(dead[:limit]):
            self.oracle.replay(row, later=timedelta(seconds=0.25) * nth)
        self.tally["replay done"] += done.retried

    @rule(what=st.sampled_from(["nothing", "nothing", "default", "other", "server"]))
    def only_that_is_stopped(self, what: str) -> None:
        """A queue, by an operator; or whatever needs the server, which somebody found to be
        broken."""
        if what == "server":
            self._the_server_goes_down()
            return
        self.begin("pause")
        wanted = {what} & set(QUEUES)
        for queue in wanted - self.oracle.paused:
            self.stage.play(self.stage.client.pause(queue))
        for queue in self.oracle.paused - wanted:
            self.stage.play(self.stage.client.resume(queue))
        self.oracle.paused = wanted

    def _the_server_goes_down(self) -> None:
        self.begin("broken")
        values = {
            "dependency": "server",
            "jobs": [],
            "down": True,
            "reason": "down",
            "retry_after": None,
            "succeeded_ago": None,
        }
        self.stage.statement("report_failures", values)
        self.oracle.break_down("server")

    @precondition(lambda self: self.pending is None)
    @rule(by=st.sampled_from(SPANS))
    def time_goes_on_and_retention_comes(self, by: timedelta) -> None:
        self.time_goes_on(by)
        self.everything_is_as_it_should_be()
        self.begin("prune")
        settings, oracle = self.stage.settings, self.oracle
        pruned = self.stage.play(prune(self.stage.house, settings))
        now = self.last.now
        old = [
            row
            for row in oracle.rows.values()
            if oracle.prunable(row, now, settings.keep_completed, settings.keep_dlq)
        ]
        for row in old:
            oracle.remove(row)
        graves = [
            (job_id, grave.ended_at)
            for job_id, grave in oracle.graves.items()
            if isinstance(grave.ended_at, datetime)
        ]
        forgotten = [job_id for job_id, ended_at in graves if ended_at < now - settings.keep_ids]
        for job_id in forgotten:
            del oracle.graves[job_id]
        living = {id for (id,) in self.stage.living()}
        given_up = [
            row
            for row in oracle.rows.values()
            if row.running
            and row.forgotten(now)
            and not (row.expired(now) and row.locked_by in living)
        ]
        for row in given_up:
            if row.expired(now) and row.attempt_count < row.max_attempts:
                oracle.give_up_lease(row)
            else:
                oracle.bury(row, now)
        assert (pruned.jobs, pruned.tombstones, pruned.expired) == (
            len(old),
            len(forgotten),
            len(given_up),
        )
        self.tally["pruned"] += len(old)
        self.tally["forgotten ids"] += len(forgotten)
        self.tally["given up"] += len(given_up)

    # Time

    @precondition(lambda self: self.pending is None)
    @rule(by=st.sampled_from(SPANS))
    def time_goes_on(self, by: timedelta) -> None:
        self.begin("advance")
        self.advance(by)

    @precondition(lambda self: self.pending is None and self.oracle.broken)
    @rule(worker=st.integers(0, 1))
    def after_a_while_somebody_tries_the_server(self, worker: int) -> None:
        self.time_goes_on(timedelta(minutes=1))
        self.everything_is_as_it_should_be()
        self.sweep(worker, resting=True)

    @rule(number=numbers, dies=st.sampled_from([False, False, False, True]))
    def accident(self, number: int, dies: bool) -> None:
        if dies:
            self._worker_dies(number % len(self.crew))
        else:
            self._lease_runs_out(number)

    def _worker_dies(self, number: int) -> None:
        """Its jobs stay as they are, and whoever comes in its place knows nothing of them."""
        self.begin("death")
        self.crew[number] = self.hire(self.crew[number].slot)

    def _lease_runs_out(self, number: int) -> None:
        """Sooner than the others: its worker could not extend it."""
        self.begin("expire")
        running = [row for row in self.oracle.rows.values() if row.running]
        if running:
            row = running[number % len(running)]
            self.stage.expire(row.job_id)
            row.lease_until = AtOnce(timedelta(seconds=-1))
