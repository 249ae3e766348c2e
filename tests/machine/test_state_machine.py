"""Ten thousand steps of everything that can happen to a queue, in random order: after each the
table is what the oracle says, and the invariants of docs/concepts/engine.md hold.

When a run fails, Hypothesis prints the shortest story that it found, step by step, and a line
@reproduce_failure(...). To play that again put the line over `class Machine`.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from pgqueue.attempt import Job
from pgqueue.database.worker_connection import RetryDelay
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.machine.ending import Ending
from tests.machine.operating import Operating
from tests.machine.producing import Producing
from tests.machine.stage import Stage

RUNS, STEPS = 150, 50
"""Of each half: two of them make use of two cores."""

HAPPENED = [
    *(
        "answer: new",
        "answer: known",
        "answer: duplicate_payload",
        "claimed",
        "orphans given back",
        "swept: claim",
    ),
    *(
        "swept: rescue",
        "ended: completed",
        "ended: failed",
        "ended: enqueued",
        "ended: shelved",
        "extended",
        "too late",
    ),
    "stale writes tried",
]
"""What no five thousand steps are without; or else the rules have come to do nothing."""


@task("m.plain")
async def plain(job: Job[Any]) -> None: ...


@task("m.brief", queue="other", max_attempts=2, depends_on="server")
async def brief(job: Job[Any]) -> None: ...


@task("m.limited", rate_limit=Limit(2, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@task("m.strange", queue="other")
async def strange(job: Job[Any]) -> None:
    """No worker has it."""


class Machine(Producing, Ending, Operating):
    pass


class Hasty(RetryDelay):
    def next(self) -> float:
        return 0.0


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("half", [1, 2])
def test_whatever_happens_in_whatever_order_the_queue_keeps_its_promises(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, half: int
) -> None:
    monkeypatch.setattr("pgqueue.worker.acker.RetryDelay", Hasty)
    Machine.tally = Counter()
    Machine.stage = Stage(database_url, settings, [plain, brief, limited, strange])
    try:
        run_state_machine_as_test(
            Machine,
            settings=hypothesis_settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=False,
                print_blob=True,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Machine.stage.close()
    print(", ".join(f"{name} {count}" for name, count in sorted(Machine.tally.items())))
    assert Machine.tally["steps"] >= 5000
    assert [name for name in HAPPENED if not Machine.tally[name]] == []
