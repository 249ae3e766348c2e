"""The ledger is out of the queue's reach, and its counts see what must not be."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgqueue import AsyncClient
from tests.chaos.counts import Counts, count
from tests.chaos.ledger import Effect, Event, Ledger
from tests.chaos.site import Site

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


FORBIDDEN = (
    "SELECT * FROM ledger.events",
    "INSERT INTO ledger.events SELECT * FROM ledger.events",
    "DELETE FROM ledger.events",
    "SELECT ledger.write_down()",
    "DROP SCHEMA ledger CASCADE",
    "ALTER TABLE job_logs DISABLE TRIGGER ledger_changes",
    "SET session_replication_role = replica",
)


async def test_no_role_of_the_queue_reaches_the_ledger(site: Site) -> None:
    for group in ("pgqueue_worker", "pgqueue_producer", "pgqueue_operator"):
        with psycopg.connect(site.login(group).url, autocommit=True) as connection:
            for statement in FORBIDDEN:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_every_write_is_in_the_ledger_under_the_name_of_who_made_it(site: Site) -> None:
    producer, worker = site.login("pgqueue_producer"), site.login("pgqueue_worker")
    async with AsyncClient.open(producer.url) as client:
        await client.enqueue("chaos.work", {}, job_id="j")
    with psycopg.connect(worker.url, autocommit=True) as connection:
        claimed = (
            "status = 'processing', lease = lease + 1, attempt_count = 1, lease_until = now(), "
            "locked_by = 'w'"
        )
        connection.execute(f"UPDATE job_logs SET {claimed}".encode())
        connection.execute("UPDATE job_logs SET lease_until = now() + interval '1 min'")
        connection.execute(
            "UPDATE job_logs SET status = 'completed', processed_at = now(), lease_until = NULL"
        )
    found = [
        (event.kind, event.status, event.lease, event.writer) for event in site.ledger().events
    ]
    assert found == [
        ("insert", "enqueued", 0, producer.name),
        ("start", "processing", 1, worker.name),
        ("end", "completed", 1, worker.name),
    ]


def test_a_sound_book_is_sound() -> None:
    counts = counted(("insert", "p"), ("start", "w"), ("end", "w"))
    counts.sound()
    assert (counts.jobs, counts.duplicate_starts, counts.figures["ended"]) == (
        1,
        0,
        {"completed": 1},
    )


@pytest.mark.parametrize("missing", ["row", "end", "effect"])
def test_what_was_accepted_and_has_not_ended_is_lost(missing: str) -> None:
    statuses = {"row": {}, "end": {"j": "processing"}, "effect": {"j": "completed"}}[missing]
    counts = counted(("insert", "p"), ("start", "w"), ("end", "w"), statuses=statuses, ends=0)
    assert counts.lost == 1
    with pytest.raises(AssertionError, match="lost: j"):
        counts.sound()


def test_two_completions_are_doubled() -> None:
    counts = counted(("insert", "p"), ("start", "w"), ("end", "w"), ("start", "w"), ("end", "w"))
    assert counts.doubled == 1
    with pytest.raises(AssertionError, match="doubled: j"):
        counts.sound()


def test_an_outcome_from_another_than_the_holder_is_stale() -> None:
    counts = counted(
        ("insert", "p"), ("start", "w"), ("start", "v"), ("end", "w"), starts=2, in_flight=1
    )
    assert counts.stale_accepted == 1
    with pytest.raises(AssertionError, match="stale: j"):
        counts.sound()


def test_more_starts_than_jobs_in_flight_are_too_many() -> None:
    counts = counted(("insert", "p"), ("start", "w"), ("start", "v"), ("end", "v"), starts=2)
    assert counts.duplicate_starts == 1
    with pytest.raises(AssertionError):
        counts.sound()


def counted(
    *written: tuple[str, str],
    statuses: dict[str, str] | None = None,
    starts: int = 1,
    ends: int = 1,
    in_flight: int = 0,
) -> Counts:
    """Counts of a book with one job, made up from what was written and by whom."""
    became = {"insert": "enqueued", "start": "processing", "end": "completed"}
    events = [
        Event(EPOCH + timedelta(seconds=n), "j", kind, became[kind], n, False, True, EPOCH, writer)
        for n, (kind, writer) in enumerate(written)
    ]
    effects = [Effect("start", "j", 1, 1)] * starts + [Effect("end", "j", 1, 1)] * ends
    book = Ledger(
        events, {"j": "completed"} if statuses is None else statuses, frozenset({"j"}), effects
    )
    return count(book, what="made up", faults=1, in_flight=in_flight)
