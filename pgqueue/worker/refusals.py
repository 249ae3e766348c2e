"""What an error of the database concerns: one row, the whole statement, or the connection. Lasting
errors are logged once."""

import logging
import time

import psycopg

from pgqueue.masking import clean

log = logging.getLogger("pgqueue.worker")

UNHEALTHY_AFTER_SECONDS = 15.0
"""A loop that has failed for this long makes the worker unhealthy."""

CONNECTION_STATES = ("08", "25006", "40", "53", "57P")
"""SQLSTATEs that concern no row: a lost connection, a standby, a conflict with another transaction,
a full disk, a server that stops."""

LOCK_STATES = ("55P03", "57014")
"""Errors of a row that another transaction has locked, or that takes too long: it may get through
later."""

LEAVE_OUT_SECONDS = 30.0
MAX_LEAVE_OUT_SECONDS = 3600.0

ADVICE = {
    "42501": "grant what sql/roles.sql grants, or look at the triggers of the application",
    "42P01": "run pgqueue migrate",
    "42703": "run pgqueue migrate",
    "42883": "run pgqueue migrate",
    "25006": "the address leads to a standby or a read-only database",
    "53100": "the database's disk is full",
    "53300": "the server takes no more connections",
    "26000": "behind a pooler in transaction mode, such as PgBouncer, set PGQUEUE_PGBOUNCER=on",
    "42P05": "behind a pooler in transaction mode, such as PgBouncer, set PGQUEUE_PGBOUNCER=on",
}


def divisible(error: BaseException) -> bool:
    """Whether the statement may succeed without one of its rows: the server refused it, or a
    parameter could not be encoded."""
    if not isinstance(error, psycopg.Error):
        return not isinstance(error, OSError | TimeoutError)
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return not error.sqlstate.startswith(CONNECTION_STATES)


def final(error: BaseException) -> bool:
    """Of a row alone: whether waiting for a lock cannot help it."""
    return not (isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(LOCK_STATES))


def damaged(error: BaseException) -> bool:
    """Whether the row itself is unreadable or invalid. An error of the application's rules (a
    trigger, a missing right) is no damage."""
    return (
        not isinstance(error, psycopg.Error)
        or error.sqlstate is None
        or error.sqlstate.startswith(("XX", "22", "23"))
    )


def words(error: BaseException) -> str:
    """The server's message in one line, without addresses."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    try:
        text = said or str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001 - an exception may fail even at that
        text = ""
    return clean(f"{type(error).__name__}: {text}".rstrip(": "), 300)


class LoopFailure:
    """An error that keeps a loop from its work. It is logged once, and again when it changes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said: str | None = None
        self._since: float | None = None

    def report(self, error: BaseException) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        said = words(error)
        if said == self._said:
            return
        self._said = said
        advice = ADVICE.get(getattr(error, "sqlstate", None) or "")
        log.warning(
            "%s: %s%s; trying again until it works",
            self._what,
            said,
            f". What to do: {advice}" if advice else "",
            extra={"event": "database.trouble", "reason": said},
        )

    def recovered(self) -> None:
        if self._said is not None:
            log.info(
                "%s no longer: the database answers", self._what, extra={"event": "database.works"}
            )
        self._said = self._since = None

    @property
    def lasting(self) -> bool:
        """Whether it has lasted for UNHEALTHY_AFTER_SECONDS."""
        return self._since is not None and time.monotonic() - self._since > UNHEALTHY_AFTER_SECONDS


class LeftOutRows:
    """Rows that the database refuses to change. Claims and sweeps skip them for half a minute, then
    for twice as long each time, up to an hour."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, float]] = {}
        """Row id -> until when, by the monotonic clock, and for how long."""

    def put(self, id: str) -> int:
        """Skip the row from now on. Returns for how many seconds."""
        _, last = self._rows.get(id, (0.0, LEAVE_OUT_SECONDS / 2))
        seconds = min(last * 2, MAX_LEAVE_OUT_SECONDS)
        self._rows[id] = (time.monotonic() + seconds, seconds)
        return round(seconds)

    def forget(self, id: str) -> None:
        self._rows.pop(id, None)

    def __contains__(self, id: object) -> bool:
        """Whether the row was put here and not forgotten since, skipped now or not."""
        return id in self._rows

    @property
    def ids(self) -> list[str]:
        """The rows to skip now."""
        if not self._rows:
            return []
        now = time.monotonic()
        return [id for id, (until, _) in self._rows.items() if until > now]
