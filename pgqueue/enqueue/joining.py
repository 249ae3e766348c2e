"""What `connection=` of the blocking client takes: a psycopg connection, or what a framework calls
its connection, with a psycopg connection under it. No framework is imported."""

import time
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen

from pgqueue.errors import InvalidJob

T = TypeVar("T")

CANCEL_SECONDS = 1.0
"""In which a statement that took too long must end after it was cancelled."""

MAX_LAYERS = 4


class DjangoConnection(Protocol):
    """`django.db.connection`, or one of `django.db.connections`."""

    def ensure_connection(self) -> None: ...


class SQLAlchemyConnection(Protocol):
    """SQLAlchemy's Connection or Session."""

    def in_transaction(self) -> bool: ...

    @property
    def connection(self) -> Any: ...


class PooledConnection(Protocol):
    """What `Engine.raw_connection()` of SQLAlchemy answers."""

    @property
    def driver_connection(self) -> Any: ...


Joinable = psycopg.Connection[Any] | DjangoConnection | SQLAlchemyConnection | PooledConnection


def psycopg_connection(given: Any) -> psycopg.Connection[Any]:
    """Return the psycopg connection under a framework's. Begins SQLAlchemy's transaction, so that
    its `commit` commits. Raises InvalidJob when there is none."""
    found = given
    for _ in range(MAX_LAYERS):
        if isinstance(found, psycopg.Connection):
            return found
        if callable(ensure := getattr(found, "ensure_connection", None)):  # Django
            ensure()
            found = found.connection
        elif (driver := getattr(found, "driver_connection", None)) is not None:  # a pool's proxy
            found = driver
        elif callable(connection := getattr(found, "connection", None)):  # SQLAlchemy's Session
            found = connection()
        elif connection is not None and hasattr(found, "in_transaction"):  # its Connection
            if not found.in_transaction():
                found.begin()
            found = connection
        else:
            break
    kind = type(found)
    under = "" if found is given else f" (under it: {kind.__module__}.{kind.__qualname__})"
    raise InvalidJob(
        "connection= takes a psycopg.Connection, or Django's or SQLAlchemy's connection with one "
        f"under it, not {type(given).__name__}{under}"
    )


class Bounded:
    """A connection of the caller's for the cursors of pgqueue: what waits on it stops at a deadline
    (by the monotonic clock), and is cancelled on the server."""

    def __init__(self, connection: psycopg.Connection[Any], deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        left = max(self._deadline - time.monotonic(), 0.01)
        try:
            return self._connection.wait(gen, interval, left)
        except errors._WaitTimeout:
            self._cancel(gen)
            raise

    def _cancel(self, gen: PQGen[Any]) -> None:
        try:
            self._connection.cancel_safe(timeout=CANCEL_SECONDS)
            self._connection.wait(gen, 0.1, CANCEL_SECONDS)
        except errors.QueryCanceled:
            pass
        except psycopg.Error:
            # The server does not answer at all: nothing can be known of this connection.
            self._connection.close()
