"""The dead-letter queue: pages, filters, replays, and what is kept of the past."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import InvalidJob, JobNotFound, WrongState
from pgqueue.job import DeadFilter
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from pgqueue.testing import drain
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import published

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.fixture
async def client(settings: Settings) -> Any:
    async with AsyncClient.open(settings) as opened:
        yield opened


async def dead(connection: Connection, job_id: str, **columns: Any) -> dict[str, Any]:
    return await a_job(connection, job_id=job_id, status="dlq", **columns)


async def test_pages_go_newest_first_and_do_not_repeat(
    client: AsyncClient, connection: Connection
) -> None:
    for number in range(25):
        await dead(connection, f"j{number:02d}", dead_at=timedelta(minutes=-number // 2))
    seen: list[str] = []
    cursor = None
    while page := await client.dead_letters(limit=10, cursor=cursor):
        seen += [view.job_id for view in page]
        last = page[-1]
        assert last.dead_at is not None
        cursor = (last.dead_at, last.id)
    assert len(seen) == len(set(seen)) == 25
    assert [view.dead_at for view in await client.dead_letters()] == sorted(
        (view.dead_at for view in await client.dead_letters()), reverse=True, key=str
    )
    assert await client.count_dead() == 25


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (DeadFilter(job_type="mail"), {"a", "b"}),
        (DeadFilter(user_id="u1"), {"a"}),
        (DeadFilter(error="no SUCH"), {"b"}),
        (DeadFilter(error="%"), {"c"}),
        (DeadFilter(job_ids=["a", "c", "none"]), {"a", "c"}),
        (DeadFilter(job_type="mail", error="refused"), {"a"}),
    ],
)
async def test_filters(
    client: AsyncClient, connection: Connection, which: DeadFilter, expected: set[str]
) -> None:
    await dead(connection, "a", job_type="mail", user_id="u1", error="connection refused")
    await dead(connection, "b", job_type="mail", user_id="u2", error="no such user")
    await dead(connection, "c", job_type="bill", user_id="u3", error="100 % wrong")
    assert {view.job_id for view in await client.dead_letters(which)} == expected
    assert await client.count_dead(which) == len(expected)


async def test_filters_by_time(client: AsyncClient, connection: Connection) -> None:
    rows = {
        name: await dead(connection, name, dead_at=timedelta(hours=-age))
        for name, age in [("old", 3), ("mid", 2), ("new", 1)]
    }
    since = DeadFilter(since=rows["mid"]["dead_at"])
    until = DeadFilter(until=rows["mid"]["dead_at"])
    assert [view.job_id for view in await client.dead_letters(since)] == ["new", "mid"]
    assert [view.job_id for view in await client.dead_letters(until)] == ["old"]


async def test_a_replayed_job_runs_again_with_its_history(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    seen: list[tuple[int, Any]] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        seen.append((job.attempt, job.payload))

    await published(connection, settings, handler)
    await dead(
        connection,
        "j",
        payload={"email": "wrong"},
        history=[{"attempt": 5, "error": "it went wrong"}],
        lease=5,
    )
    await client.replay("j", {"email": "right"})
    row = await the_job(connection, "j")
    assert (
        row["status"],
        row["attempt_count"],
        row["error"],
        row["dead_at"],
        row["processed_at"],
    ) == (
        "enqueued",
        0,
        None,
        None,
        None,
    )
    assert row["lease"] == 5, "the fence never goes back"
    assert row["history"][0]["error"] == "it went wrong"
    assert row["history"][1] | {"at": None} == {
        "event": "replayed", "was": "dlq", "error": "it went wrong", "payload": {"email": "wrong"},
        "at": None,
    }  # fmt: skip
    await drain(client, handler)
    assert seen == [(1, {"email": "right"})]


async def test_a_replayed_job_still_knows_the_payload_it_was_enqueued_with(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None: ...

    await published(connection, settings, handler)
    await dead(connection, "j", user_id="system", payload={"a": 1})
    await client.replay("j", {"a": 2})
    assert not (await client.enqueue(handler, {"a": 1}, job_id="j")).created


async def test_a_replay_does_not_count_against_the_limit(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    @task("test.job", rate_limit=Limit(1, per="1h"))
    async def handler(job: Job[Any]) -> None: ...

    await published(connection, settings, handler)
    await dead(connection, "j", user_id="u")
    await client.replay("j")
    assert (await the_job(connection, "j"))["status"] == "enqueued"


@pytest.mark.parametrize("status", ["enqueued", "processing", "failed", "completed"])
async def test_only_what_is_dead_or_cancelled_can_be_replayed(
    client: AsyncClient, connection: Connection, status: str
) -> None:
    before = await a_job(connection, job_id="j", status=status)
    with pytest.raises(WrongState) as refused:
        await client.replay("j")
    assert refused.value.status == status
    assert await the_job(connection, "j") == before
    with pytest.raises(JobNotFound):
        await client.replay("none")


async def test_a_deleted_one_is_cancelled_and_keeps_its_id_and_place(
    client: AsyncClient, connection: Connection
) -> None:
    await dead(connection, "j")
    await client.delete_dead("j")
    row = await the_job(connection, "j")
    assert (row["status"], row["dead_at"]) == ("cancelled", None)
    with pytest.raises(WrongState):
        await client.delete_dead("j")
    with pytest.raises(JobNotFound):
        await client.delete_dead("none")
    assert await client.dead_letters() == []


async def test_many_are_replayed_the_longest_dead_first_and_spread_out(
    client: AsyncClient, connection: Connection
) -> None:
    for number in range(10):
        await dead(connection, f"j{number}", dead_at=timedelta(minutes=-number))
    await dead(connection, "other", job_type="other")
    which = DeadFilter(job_type="test.job")
    looked = await client.replay_many(which, dry_run=True)
    assert (looked.retried, looked.matched, looked.remaining, looked.dry_run) == (0, 10, 10, True)
    done = await client.replay_many(which, rate=2, limit=6)
    assert (done.retried, done.matched, done.remaining, done.dry_run) == (6, 10, 4, False)
    rows = await sql(
        connection,
        "SELECT job_id, run_after FROM job_logs WHERE status = 'enqueued' ORDER BY run_after",
    )
    assert [row["job_id"] for row in rows] == ["j9", "j8", "j7", "j6", "j5", "j4"]
    steps = [
        (later["run_after"] - sooner["run_after"]).total_seconds()
        for sooner, later in pairwise(rows)
    ]
    assert all(0.45 <= step <= 0.55 for step in steps)
    with pytest.raises(InvalidJob):
        await client.replay_many(which, rate=0)
