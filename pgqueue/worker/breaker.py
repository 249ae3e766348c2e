"""The circuit breaker: jobs that depend on a broken service wait and burn no attempt.

The state is in the table job_dependencies and shared by all workers. This class holds what this
worker has last read."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from pgqueue.attempt import Outcome
from pgqueue.database.adapters import array
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.job import Status
from pgqueue.policy import spared
from pgqueue.worker.inflight import RunningAttempt

log = logging.getLogger("pgqueue.worker")

Ended = tuple[RunningAttempt, Outcome]


class Breaker:
    """Sees every failure before it is written, and may replace it by a wait that burns no attempt.
    `closed` is called when a breaker has closed."""

    def __init__(
        self,
        connection: WorkerConnection,
        depends: Mapping[str, str],
        closed: Callable[[], None],
        worker: str,
    ) -> None:
        self.connection = connection
        self.depends = depends
        """Job type -> what it depends on."""
        self.closed = closed
        self.worker = worker
        self.waiting: set[str] = set()
        """Dependencies whose breaker was not closed when this worker last read them."""
        self._suspects: set[str] = set()
        self._succeeded_at: dict[str, float] = {}
        self._closed_at: dict[str, float] = {}
        """When this worker learned that a breaker had closed, by the monotonic clock."""

    def heard(self, trouble: Sequence[str] | None) -> None:
        """Take over the states that a claim or a sweep has read: "name state" of each dependency
        that is not well."""
        states = dict(one.rsplit(" ", 1) for one in trouble or ())
        waiting = {name for name, state in states.items() if state != "closed"}
        self._suspects = set(states) - waiting
        works_again = self.waiting - waiting
        self.waiting = waiting
        if works_again:
            self._note_closed(works_again)

    def _note_closed(self, dependencies: Iterable[str]) -> None:
        now = time.monotonic()
        self._closed_at.update((name, now) for name in dependencies)
        self.closed()

    @property
    def probing(self) -> list[str]:
        """Dependencies that this worker has a job type to probe with."""
        return sorted(self.waiting & set(self.depends.values())) if self.waiting else []

    def succeeded(self, held: RunningAttempt) -> bool:
        """Note a completion. Returns whether `judge` must report it to the database."""
        dependency = self.depends.get(held.claim.job_type)
        if dependency is None:
            return False
        self._succeeded_at[dependency] = held.finished_at
        return dependency in self._suspects or held.claim.probe is not None

    async def judge(self, group: list[Ended]) -> list[Ended]:
        """Report failures to the database. Returns the outcomes, in which failures of a dependency
        that is down burn no attempt. Raises what WorkerConnection.run raises."""
        blamed: dict[str, list[Ended]] = {}
        for held, outcome in group:
            if held.claim.probe is not None:
                await self._end_probe(held, outcome)
            elif outcome.dependency is not None:
                blamed.setdefault(outcome.dependency, []).append((held, outcome))
            elif (
                outcome.status is Status.COMPLETED
                and (suspect := self.depends.get(held.claim.job_type)) in self._suspects
            ):
                await self.connection.run("report_success", {"dependency": suspect})
                self._suspects.discard(suspect)
        for dependency, failures in blamed.items():
            await self._report(dependency, failures)
        return [(held, self._spared(held, outcome)) for held, outcome in group]

    async def _report(self, dependency: str, failures: list[Ended]) -> None:
        succeeded_at = self._succeeded_at.get(dependency)
        since = [
            (held, outcome)
            for held, outcome in failures
            if not self._began_before(dependency, held)
            and (outcome.down or succeeded_at is None or held.finished_at > succeeded_at)
        ]
        if not since:
            # A later job succeeded, or these attempts began before the breaker closed.
            self._suspects.add(dependency)
            return
        rows = await self.connection.run(
            "report_failures",
            {
                "dependency": dependency,
                "jobs": array(held.claim.id for held, _ in since),
                "down": any(outcome.down for _, outcome in since),
                "reason": since[-1][1].error,
                "retry_after": max(
                    (outcome.retry_after for _, outcome in since if outcome.retry_after),
                    default=None,
                ),
                "succeeded_ago": None
                if succeeded_at is None
                else f"{time.monotonic() - succeeded_at:.6f} s",
            },
        )
        state = rows[0][0]
        if state == "closed":
            self._suspects.add(dependency)
            return
        self.waiting.add(dependency)
        if state == "opened":
            log.error(
                "%s is down, jobs that depend on it wait: %s",
                dependency,
                since[-1][1].error,
                extra={"event": "breaker.opened", "dependency": dependency},
            )

    async def _end_probe(self, held: RunningAttempt, outcome: Outcome) -> None:
        dependency = held.claim.probe or ""
        down = outcome.dependency == dependency
        alive = outcome.status is Status.COMPLETED or outcome.answered
        verdict = "alive" if alive else "down" if down else "unclear"
        rows = await self.connection.run(
            "report_probe",
            {
                "dependency": dependency,
                "probe": held.claim.id,
                "lease": held.claim.lease,
                "worker": self.worker,
                "verdict": verdict,
                "reason": outcome.error,
                "retry_after": outcome.retry_after,
            },
        )
        if rows[0][0] == "closed":
            self.waiting.discard(dependency)
            log.info(
                "%s works again",
                dependency,
                extra={"event": "breaker.closed", "dependency": dependency},
            )
            self._note_closed([dependency])
        else:
            log.info(
                "%s was tried: %s",
                dependency,
                verdict,
                extra={"event": "breaker.probed", "dependency": dependency},
            )

    def _spared(self, held: RunningAttempt, outcome: Outcome) -> Outcome:
        mine = held.claim.probe or self.depends.get(held.claim.job_type)
        if outcome.dependency is None or outcome.dependency != mine:
            return outcome
        if mine not in self.waiting and not self._began_before(mine, held):
            return outcome
        return spared(outcome, probe=held.claim.probe is not None)

    def _began_before(self, dependency: str, held: RunningAttempt) -> bool:
        """Whether the attempt began before this worker learned that the breaker closed. Its failure
        says nothing about the present state."""
        return held.started_at <= self._closed_at.get(dependency, -math.inf)
