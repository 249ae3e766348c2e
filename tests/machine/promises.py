"""The invariants of docs/concepts/engine.md: what may be in the table, and what may change from one
look to the next. They know nothing of the statements, and do not depend on the oracle."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pgqueue.attempt import Outcome
from pgqueue.job import Status
from tests.machine.oracle import Oracle
from tests.machine.stage import Hands, Look
from tests.machine.values import ENDED

if TYPE_CHECKING:
    from tests.machine.core import Core

BY_HOLDER = {"finish", "orphans"}
"""Deeds in which the holder of a lease, and nobody else, ends an attempt."""

REVIVING = {"replay", "delete"}
"""Deeds that may change a row that has ended."""


def check(before: Look, after: Look, deed: str) -> None:
    if deed == "advance":
        return
    gone = before.rows.keys() - after.rows.keys()
    assert not gone or deed == "prune", f"lost: {gone}"
    for job_id in gone:
        assert before.rows[job_id]["status"] in ENDED, "only what has ended is pruned"
    for job_id, new in after.rows.items():
        check_row(new)
        if old := before.rows.get(job_id):
            check_step(old, new, deed)


def check_row(row: dict[str, Any]) -> None:
    assert 0 <= row["attempt_count"] <= row["max_attempts"]
    assert (row["processed_at"] is not None) is (row["status"] in ENDED)
    assert (row["lease_until"] is not None) is (row["status"] == "processing")
    assert row["dead_at"] == (row["processed_at"] if row["status"] == "dlq" else None)
    assert row["intent_at"] is None or row["status"] != "completed"


def check_step(old: dict[str, Any], new: dict[str, Any], deed: str) -> None:
    name = old["job_id"]
    assert new["id"] == old["id"], f"{name} is another row"
    assert new["created_at"] == old["created_at"]
    assert new["lease"] >= old["lease"], f"the fence of {name} went back"
    if old["status"] in ENDED:
        assert new == old or deed in REVIVING, f"{name} had ended, and {deed} changed it"
    if old["status"] == "processing" and deed not in BY_HOLDER:
        kept = (new["status"], new["lease"]) == ("processing", old["lease"])
        assert kept or new["lease"] > old["lease"], (
            f"{deed} took {name} from its worker and left it the lease"
        )
    if (new["status"], new["lease"]) == ("processing", old["lease"]) and deed not in (
        "extend",
        "progress",
        "intend",
        "expire",
    ):
        assert new == old, f"{deed} changed {name}, which its worker still holds"
    if new["attempt_count"] > old["attempt_count"]:
        assert new["attempt_count"] == old["attempt_count"] + 1
        assert (
            new["lease"] > old["lease"]
        )  # by two, where a sweep takes it from somebody and starts it as a probe


def check_limits(oracle: Oracle, now: datetime) -> None:
    """No user has more than the limit in any window, that is in the one that begins with any job of
    theirs."""
    for row in oracle.rows.values():
        kind = oracle.kinds[row.job_type]
        if kind.limit is None or not row.counted:
            continue
        assert isinstance(row.created_at, datetime)
        inside = [
            other
            for other in oracle.rows.values()
            if (other.job_type, other.user_id) == (row.job_type, row.user_id)
            and isinstance(other.created_at, datetime)
            and row.created_at - kind.window < other.created_at < row.created_at
        ]
        assert len(inside) < kind.limit, (
            f"{row.user_id} has {len(inside) + 1} jobs of {row.job_type} in a window"
        )


def check_that_one_is_enough(machine: "Core", hands: Hands) -> None:
    """Claims and sweeps of this one worker, from wherever its cursors are, and everything that is
    due ends."""
    for held in list(hands.attempts):
        hands.attempts.remove(held)
        hands.worker.inflight.drop(held)
    for queue in list(machine.oracle.paused):
        machine.stage.play(machine.stage.client.resume(queue))
    machine.stage.eye.execute("DELETE FROM job_dependencies")
    idle = 0
    for _ in range(60):
        idle = 0 if machine.stage.play(_turn(hands)) else idle + 1
        if idle == 2:
            break
    left = [
        row
        for row in machine.stage.look().rows.values()
        if row["status"] not in ENDED
        and row["run_after"] <= machine.last.now
        and row["job_type"] in hands.types
    ]
    assert not left, f"{hands.name} never got to {[(row['job_id'], row['status']) for row in left]}"


async def _turn(hands: Hands) -> int:
    await hands.claim()
    done = list(hands.started)
    await hands.sweep(resting=False)
    done += hands.started
    await hands.write(
        [
            (held, Outcome(Status.COMPLETED) if held.claim.job_type in hands.types else None)
            for held in done
        ]
    )
    return len(done)
