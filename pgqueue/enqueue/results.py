"""Turns rows of sql/queries/ into the values that callers get, and refusals of Postgres into the
errors of pgqueue."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pgqueue.database.errors import LOST
from pgqueue.database.loaders import entries
from pgqueue.database.reasons import reason
from pgqueue.errors import (
    DuplicatePayload,
    InvalidJob,
    NotAllowed,
    RateLimited,
    SchemaError,
    Unavailable,
    UnknownType,
)
from pgqueue.job import JobView, Status, Ticket

TOO_MUCH = ("54000", "54001", "54011", "54023")
"""What goes past a limit of Postgres, such as a payload of too many levels: sent again it would be
refused again."""


def ticket_from(row: dict[str, Any], job_type: str) -> Ticket:
    error: Exception | None = None
    if row["refusal"] == "rate_limited":
        error = RateLimited(job_type, max(row["retry_after"], timedelta()))
    elif row["refusal"] == "duplicate_payload":
        error = DuplicatePayload(row["job_id"])
    status = Status(row["status"]) if row["status"] and error is None else None
    return Ticket(row["job_id"], status, row["created"], error)


def bulk_rows(
    rows: Sequence[dict[str, Any]], given: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each of the given jobs, as enqueue_job.sql answers it. The bulk statements leave
    out the jobs that were created."""
    queues = {row["job_type"]: row["queue"] for row in rows if row["ord"] is None}
    answered = {row["ord"]: row for row in rows if row["ord"] is not None}
    return [
        answered.get(number)
        or {
            "job_id": values["job_id"],
            "status": "enqueued",
            "created": True,
            "retry_after": None,
            "refusal": None,
            "queue": values["queue"] or queues[values["job_type"]],
        }
        for number, values in enumerate(given, 1)
    ]


def view_from(row: dict[str, Any]) -> JobView:
    times = {
        key: value.astimezone(UTC) for key, value in row.items() if isinstance(value, datetime)
    }
    return JobView(
        **{**row, **times, "status": Status(row["status"]), "history": entries(row["history"])}
    )


def refusal(error: psycopg.Error) -> str:
    """Names the rule that the database enforces, and repeats nothing of what was sent."""
    constraint = error.diag.constraint_name
    if constraint:
        return f"refused by the rule {constraint.replace('_', ' ')}"
    if isinstance(
        error, psycopg.errors.UntranslatableCharacter | psycopg.errors.CharacterNotInRepertoire
    ):
        return "a text contains a character that cannot be stored (NUL)"
    return f"a value is not valid ({type(error).__name__})"


@contextmanager
def in_our_schema() -> Iterator[None]:
    """SchemaError where a table, a column or a function is missing."""
    try:
        yield
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
    ):
        raise SchemaError(
            "the database has no schema of pgqueue, or an older one: run pgqueue migrate"
        ) from None


@contextmanager
def in_our_words() -> Iterator[None]:
    """What the database refuses, in the words of pgqueue.errors."""
    try:
        with in_our_schema():
            yield
    except psycopg.errors.InvalidParameterValue as error:
        message = error.diag.message_primary or str(error)
        if message.startswith("unknown job type"):
            hint = (
                "types are published by a worker that has the task, and by pgqueue migrate for "
                "PGQUEUE_MODULES"
            )
            raise UnknownType(f"{message}: {hint}") from None
        raise InvalidJob(message) from None
    except psycopg.errors.InsufficientPrivilege as error:
        message = error.diag.message_primary or ""
        if message.startswith("job type"):
            raise NotAllowed(
                f"{message}: connect as a member of pgqueue_operator, see sql/roles.sql"
            ) from None
        raise
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise InvalidJob(refusal(error)) from None
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            raise
        raise InvalidJob(
            f"the connection's client_encoding ({error.encoding}) has no word for a character: "
            "use UTF8"
        ) from None
    except LOST as error:
        if getattr(error, "sqlstate", None) in TOO_MUCH:
            raise InvalidJob(refusal(error)) from None  # type: ignore[arg-type]  # what has a sqlstate is psycopg's
        raise Unavailable(reason(error)) from error
