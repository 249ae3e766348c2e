"""Extends leases from an OS thread with a connection of its own, so that a handler which blocks the
event loop keeps its lease."""

import asyncio
import logging
import threading
import time
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

from pgqueue.database.adapters import TextId, array
from pgqueue.database.errors import STALE
from pgqueue.database.session import OURS, settle_now
from pgqueue.database.worker_connection import load
from pgqueue.settings import Settings
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.refusals import LoopFailure, divisible, words
from pgqueue.worker.watchdog import Watchdog

log = logging.getLogger("pgqueue.worker")

T = TypeVar("T")


class _BoundedConnection(psycopg.Connection[TupleRow]):
    """BoundedConnection of pgqueue.database.worker_connection, for a thread."""

    deadlines: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, self.deadlines if timeout is None else timeout)


class LeaseKeeper:
    """Extends each lease when a third of it has passed. An attempt is stopped when it is certain
    that its lease is gone, or when no extension succeeded for so long that another worker may have
    the job; not at the first failure."""

    def __init__(
        self, inflight: InFlight, settings: Settings, worker: str, watchdog: Watchdog
    ) -> None:
        self._inflight = inflight
        self._watchdog = watchdog
        self._settings = settings
        self._worker = worker
        self._lease = settings.lease.total_seconds()
        self._margin = min(self._lease / 6, 2.0)
        self._trouble = LoopFailure("leases cannot be extended")
        self._refused: set[str] = set()
        """Rows whose refused extension has been logged."""
        self._stop = threading.Event()
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    async def watch(self) -> None:
        """Cancel attempts whose lease could not be extended in time, until cancelled itself. Runs
        in the event loop, because the thread may be waiting for a reply that never comes."""
        while True:
            await asyncio.sleep(self._lease / 24)
            now = time.monotonic()
            for one in list(self._inflight.attempts.values()):
                if one.lost is None and now - one.extended_at > self._lease - self._margin:
                    self._lose(one, "it could not be extended in time")

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 12):
            now = time.monotonic()
            held = list(self._inflight.attempts.values())
            if self._stands_still:
                self._leave_to_others(held)
            due = [
                one for one in held if one.lost is None and now - one.extended_at >= self._lease / 3
            ]
            if due:
                try:
                    self._extend_or_divide(due)
                except Exception as error:  # noqa: BLE001 - leases are extended after any error
                    self._disconnect()
                    self._trouble.report(error)
                else:
                    self._trouble.recovered()
        self._disconnect()

    def _extend_or_divide(self, due: list[RunningAttempt], *, prepared_anew: bool = False) -> None:
        """Extend leases; halve a refused group, so that one refused row does not lose the
        others."""
        try:
            self._extend(due)
        except Exception as error:
            if not divisible(error):
                raise
            if isinstance(error, STALE) and not prepared_anew:
                self._disconnect()
                self._extend_or_divide(due, prepared_anew=True)
                return
            self._extend([])
            if len(due) > 1:
                self._extend_or_divide(due[: len(due) // 2])
                self._extend_or_divide(due[len(due) // 2 :])
            elif (claim := due[0].claim).id not in self._refused:
                self._refused.add(claim.id)
                extra = {
                    "event": "lease.refused",
                    "jobId": claim.job_id,
                    "row": claim.id,
                    "reason": words(error),
                }
                log.error(
                    "Job %s (row %s): its lease cannot be extended: %s",
                    claim.job_id,
                    claim.id,
                    words(error),
                    extra=extra,
                )

    @property
    def _stands_still(self) -> bool:
        return self._watchdog.still > self._lease

    def _leave_to_others(self, held: list[RunningAttempt]) -> None:
        """After the event loop was blocked for longer than a lease: stop extending attempts that
        have not begun, so that other workers can rescue their jobs."""
        waiting = [one for one in held if not one.begun and one.lost is None]
        for one in waiting:
            one.lost = "the event loop stood still, and it had not begun"
            if one.begun:  # since the line above: an attempt sets `begun`, then reads `lost`
                one.lost = None
        if waiting:
            log.error(
                (
                    "the event loop has stood still for %.0f s: jobs that had not begun are left "
                    "to other workers: %d"
                ),
                self._watchdog.still,
                len(waiting),
                extra={"event": "loop.stands_still", "jobs": len(waiting)},
            )

    def _extend(self, due: list[RunningAttempt]) -> None:
        sent_at = time.monotonic()
        attempts = {(one.claim.id, one.claim.lease): one for one in due}
        rows = self._ready().execute(
            load("extend_leases"),
            {
                "ids": array(one.claim.id for one in due),
                "leases": array(one.claim.lease for one in due),
                "ages": array(f"{sent_at - one.claimed_at:.3f}" for one in due),
                "lease": self._settings.lease,
                "worker": self._worker,
                # No heartbeat while the event loop is blocked: this worker claims and acks nothing.
                "alive": not self._stands_still,
            },
            binary=True,
        )
        for id, lease, what in rows:
            if what == "extended":
                attempts[id, lease].extended_at = sent_at
            else:
                self._lose(attempts[id, lease], "it was cancelled, or another worker has it")

    def _lose(self, held: RunningAttempt, why: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._inflight.lose, held, why)

    def _ready(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None or self._connection.closed:
            pooled = self._settings.direct_is_pooled
            connection = _BoundedConnection.connect(
                self._settings.direct_conninfo,
                autocommit=True,
                prepare_threshold=None if pooled else 0,
                application_name="pgqueue leases",
                client_encoding="UTF8",
            )
            # A third of the lease: after a longer extension there would be no time for a second
            # try.
            connection.deadlines = self._lease / 3
            limit = f"{int(self._lease * 1000 / 3)}ms"
            settle_now(
                connection, pooled, OURS | {"statement_timeout": limit, "lock_timeout": limit}
            )
            connection.adapters.register_loader("uuid", TextId)
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
