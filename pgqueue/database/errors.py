"""What a statement raises when the database is away, and what it raises when the database is there
and refuses."""

import psycopg

from pgqueue.database.statements import load as load

STANDBY = psycopg.errors.ReadOnlySqlTransaction
"""What a standby answers: the address led to it for a moment. The connection lives, and cannot be
used."""


LOST = (psycopg.OperationalError, psycopg.InterfaceError, STANDBY, OSError, TimeoutError)
"""What a statement raises when the database is away; the statement may have been carried
out."""


def survived(error: BaseException) -> bool:
    """Whether it is one of LOST and yet an answer: the statement was refused (a timeout, a lock, a
    limit), the connection lives."""
    state = getattr(error, "sqlstate", None)
    return state is not None and not state.startswith(("08", "57P", "25006"))


def sent_before(error: BaseException) -> bool:
    """Whether the reply to an earlier try of the same statement was lost: it may have been carried
    out then."""
    return bool(getattr(error, "sent_before", False))


STALE = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.DatatypeMismatch,
)
"""What a prepared statement raises that no longer fits: a column has another type by now, or a
pooler or `DISCARD ALL` has thrown the statement away. DatatypeMismatch: the same of a plan that a
function of ours keeps in its session. Nothing was done; on a new connection it is prepared anew."""


AWAY = (psycopg.Error, OSError, TimeoutError)
"""For the engine's loops, which continue after any of these: LOST, and what a standby, a missing
right or an incomplete schema answers until it is repaired."""


REFUSED = (psycopg.DataError, psycopg.IntegrityError)
"""What a statement raises because of a value in it; sent again it would be refused again."""


REPEATABLE = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""What a statement raises when it was undone because of another one: it can simply be sent
again."""
