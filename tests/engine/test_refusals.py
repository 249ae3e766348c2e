"""What the server answers with an error is no lost database: it costs one row, or is told; all
other jobs go on."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, task, testing
from pgqueue.database.migrations import migrate
from pgqueue.database.retention import prune
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.settings import Settings
from pgqueue.worker import inflight, refusals
from pgqueue.worker.lanes import START
from pgqueue.worker.refusals import LeftOutRows
from pgqueue.worker.refused_rows import MAX_REFUSED_IN_A_ROW
from pgqueue.worker.worker import Worker
from tests.support.damage import incompressible, zero_what_is_stored_out_of_line
from tests.support.factories import a_job, sql, the_job, value
from tests.support.scene import claim, link, published, sweep, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
OTHERS = 12


@task("test.job")
async def quick(job: Job[Any]) -> None:
    """Done at once."""


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.job_id LIKE 'bad%' AND {when} THEN RAISE EXCEPTION 'not this one'{code}; END IF;
    RETURN {answer};
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON job_logs FOR EACH ROW EXECUTE FUNCTION refuse();
"""

WHENS = {
    "its claim": "NEW.status = 'processing' AND OLD.status <> 'processing'",
    "its completion": "NEW.status = 'completed'",
    "every ending": "NEW.status IN ('completed', 'dlq', 'failed')",
    "everything": "true",
}


@asynccontextmanager
async def its_own_server(installed: dict[int, Path], major: int) -> AsyncIterator[EmbeddedServer]:
    if major not in installed:
        pytest.skip(f"Postgres {major} is not installed here")
    with EmbeddedServer({"autovacuum": "off"}, binaries=installed[major]) as server:
        await migrate(server.url())
        yield server


async def refusing(
    connection: Connection, when: str, code: str = " USING ERRCODE = '42501'"
) -> None:
    await connection.execute(
        REFUSE.format(when=WHENS.get(when, when), code=code, answer="NEW").encode()
    )


async def others_are_done(connection: Connection, count: int = OTHERS) -> bool:
    query = "SELECT count(*) FROM job_logs WHERE job_id LIKE 'good%' AND status = 'completed'"
    return bool(await value(connection, query) == count)


async def crowd(client: AsyncClient, *, bad: int = 1, before: str = "") -> None:
    """Good jobs, and bad ones in their midst."""
    for number in range(OTHERS):
        if number == OTHERS // 2:
            for one in range(bad):
                await client.enqueue(quick, {}, job_id=f"bad-{before}{one}")
        await client.enqueue(quick, {}, job_id=f"good-{before}{number}")


@pytest.mark.parametrize(
    "code", ["", " USING ERRCODE = '42501'", " USING ERRCODE = '23514'", " USING ERRCODE = '0A000'"]
)
@pytest.mark.parametrize("when", WHENS)
async def test_a_row_that_the_database_refuses_holds_up_no_other(
    connection: Connection,
    settings: Settings,
    when: str,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await published(connection, settings, quick)
    await refusing(connection, when, code)
    async with AsyncClient.open(settings) as client:
        await crowd(client, bad=2)
        async with working(settings, quick) as worker:
            await until(lambda: others_are_done(connection), 30, "the other jobs are done")
            await crowd(client, bad=0, before="later-")
            await until(lambda: others_are_done(connection, 2 * OTHERS), 30, "later jobs are done")
            if when in ("its claim", "its completion"):
                await until(
                    lambda: bad_are(connection, "dlq"),
                    30,
                    "the refused job is in the dead-letter queue",
                )
            assert worker.healthy
    if when in ("its claim", "its completion"):
        assert "not this one" in (await the_job(connection, "bad-0"))["error"]
    assert "bad-0" in caplog.text


@pytest.mark.parametrize("code", ["42501", "57014"], ids=["for good", "as if it were locked"])
async def test_more_refused_outcomes_than_slots_hold_up_no_other(
    connection: Connection, settings: Settings, code: str
) -> None:
    """No other outcome can prove that only theirs are refused, as long as they have all slots."""
    await published(connection, settings, quick)
    await refusing(connection, "every ending", f" USING ERRCODE = '{code}'")
    few = dataclasses.replace(settings, queues={"default": 3})
    async with AsyncClient.open(settings) as client:
        for number in range(7):
            await client.enqueue(quick, {}, job_id=f"bad-{number}", priority=0)
        await crowd(client, bad=0)
        async with working(few, quick) as worker:
            await until(lambda: others_are_done(connection), 30, "the other jobs are done")
            assert worker.inflight.free("default") == 3
            await sql(connection, "DROP TRIGGER refuse ON job_logs")
            await until(lambda: not worker.inflight.attempts, 30, "what was refused is written")
            assert worker.inflight.free("default") == 3, "no slot is given back twice"


async def test_refused_outcomes_without_a_slot_are_bounded(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the outcome of every job is refused, few jobs run without one."""
    monkeypatch.setattr(inflight, "MAX_WITHOUT_SLOT", 4)
    await published(connection, settings, quick)
    await refusing(connection, "every ending")
    few = dataclasses.replace(settings, queues={"default": 3})
    async with AsyncClient.open(settings) as client:
        for number in range(20):
            await client.enqueue(quick, {}, job_id=f"bad-{number}")
        async with working(few, quick) as worker:
            await until(lambda: len(worker.inflight.attempts) == 7)
            await a_refused_try(worker)
            assert len(worker.inflight.attempts) == 7
            query = "SELECT count(*) FROM job_logs WHERE status = 'processing'"
            assert await value(connection, query) == 7
            await sql(connection, "DROP TRIGGER refuse ON job_logs")
            await until(lambda: bad_are(connection, "completed"), 30)


async def a_refused_try(worker: Worker) -> None:
    """Until a refused outcome was sent once more: by then its slot would be free, and taken."""
    tries = _most_tries(worker)
    await until(lambda: _most_tries(worker) > tries)


def _most_tries(worker: Worker) -> int:
    return max((one.tries for one in worker.acker._to_send_again), default=-1)


async def bad_are(connection: Connection, status: str) -> bool:
    query = "SELECT bool_and(status = %s) FROM job_logs WHERE job_id LIKE 'bad%%'"
    return bool(await value(connection, query, [status]))


async def test_a_refused_rescue_and_a_refused_burial_hold_up_no_other(
    connection: Connection, settings: Settings
) -> None:
    await published(connection, settings, quick)
    over = timedelta(seconds=-1)
    for name, attempts in (("bad-1", 1), ("good-1", 1), ("bad-5", 5), ("good-5", 5), ("good-2", 1)):
        await a_job(
            connection, job_id=name, status="processing", attempt_count=attempts, lease_until=over
        )
    await refusing(connection, "everything")
    async with working(settings, quick):
        await until(lambda: ended(connection, "good-1", "good-2", "good-5"), 30)
    assert (await the_job(connection, "bad-1"))["status"] == "processing"


async def ended(connection: Connection, *names: str) -> bool:
    query = "SELECT count(*) FROM job_logs WHERE job_id = ANY (%s) AND processed_at IS NOT NULL"
    return bool(await value(connection, query, [list(names)]) == len(names))


async def test_when_every_row_is_refused_none_is_dead_lettered(
    connection: Connection,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An application has frozen the table for a while: that is no fault of the jobs."""
    monkeypatch.setattr(refusals, "LEAVE_OUT_SECONDS", 1.0)
    await published(connection, settings, quick)
    await refusing(connection, "true")
    await sql(
        connection,
        "UPDATE pg_proc SET prosrc = replace(prosrc, 'bad%', '%') WHERE proname = 'refuse'",
    )
    async with AsyncClient.open(settings) as client, working(settings, quick):
        await crowd(client, bad=3)
        await until(
            lambda: caplog.text.count("is left out for") > MAX_REFUSED_IN_A_ROW,
            what="a second search",
        )
        assert await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'dlq'") == 0
        await sql(connection, "DROP TRIGGER refuse ON job_logs")
        await until(lambda: ended(connection, "good-0", f"good-{OTHERS - 1}", "bad-0"), 45)


async def test_a_missing_right_is_told_once_in_words_and_makes_the_worker_unhealthy(
    connection: Connection,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "UNHEALTHY_AFTER_SECONDS", 0.5)
    release = asyncio.Event()

    @task("test.job")
    async def waits(job: Job[Any]) -> None:
        await release.wait()

    await published(connection, settings, waits)
    async with AsyncClient.open(settings) as client, working(settings, waits) as worker:
        await client.enqueue(waits, {}, job_id="good-0")
        await until(lambda: bool(worker.performer.running))
        assert worker.healthy
        with caplog.at_level(logging.WARNING):
            await sql(connection, "REVOKE UPDATE ON job_logs FROM pgqueue_worker")
            for column in (
                "status",
                "receipt",
                "lease_until",
                "processed_at",
                "error",
                "stack_trace",
                "intent_at",
            ):
                await connection.execute(
                    f"REVOKE UPDATE ({column}) ON job_logs FROM pgqueue_worker".encode()
                )
            release.set()
            await until(lambda: not worker.healthy, 20)
            told = [r.getMessage() for r in caplog.records if "outcomes wait" in r.getMessage()]
        assert len(told) == 1, told
        assert "permission denied" in told[0]
        assert "sql/roles.sql" in told[0]
        await sql(connection, "GRANT UPDATE ON job_logs TO pgqueue_worker")
        await until(lambda: others_are_done(connection, 1), 20)
        await until(lambda: worker.healthy, 20)


async def test_a_damaged_row_goes_to_the_dead_letter_queue_and_all_others_are_done(
    installed: dict[int, Path],
    postgres_major: int,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    async with its_own_server(installed, postgres_major) as server:
        settings = Settings(database_url=server.url(), poll_interval=timedelta(milliseconds=20))
        async with AsyncClient.open(settings) as client:
            async with await psycopg.AsyncConnection.connect(
                server.url(), autocommit=True
            ) as connection:
                await published(connection, settings, quick)
            for n in range(3):
                await client.enqueue(quick, {"text": incompressible()}, job_id=f"bad-{n}")
        await zero_what_is_stored_out_of_line(server)
        async with (
            await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as connection,
            AsyncClient.open(settings) as client,
        ):
            await crowd(client, bad=0)
            async with testing.working(settings, quick) as worker:
                await until(lambda: others_are_done(connection), 30)
                await until(lambda: bad_are(connection, "dlq"), 30)
                assert worker.healthy
                assert "missing chunk" in await value(
                    connection, "SELECT error FROM job_logs WHERE job_id = 'bad-0'"
                )
                dead = await client.dead_letters()
                assert [view.payload[:12] for view in dead] == ["unreadable: "] * 3
                assert "missing chunk" in (await client.get("bad-1")).payload
                await sql(
                    connection,
                    (
                        "UPDATE job_logs SET processed_at = now() - interval '60 d' WHERE status = "
                        "'dlq'"
                    ),
                )
                done = await prune(connection, settings, archive=tmp_path / "archive")
                assert (done.jobs, done.kept) == (0, 3), "what cannot be archived stays"
                assert (await prune(connection, settings)).jobs == 3
    assert "bad-0" in caplog.text


def test_a_row_that_is_put_aside_again_is_left_out_for_longer() -> None:
    left_out = LeftOutRows()
    assert [left_out.put("a") for _ in range(9)] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert left_out.ids == ["a"]
    assert "a" in left_out
    left_out.forget("a")
    assert left_out.ids == []
    assert "a" not in left_out


async def test_what_waits_in_a_lane_is_looked_at_in_its_order(
    connection: Connection, settings: Settings
) -> None:
    values = {"queue": "default", "priority": 5, "run_after": START[0], "id": START[1], "aside": []}
    for name, minutes, status in (
        ("ended", -9, "completed"),
        ("left out", -8, "enqueued"),
        ("first", -7, "enqueued"),
    ):
        await a_job(connection, job_id=name, run_after=timedelta(minutes=minutes), status=status)
    left_out = (await the_job(connection, "left out"))["id"]
    async with link(settings) as one:
        rows = await one.run("next_in_lane", values | {"aside": [left_out]})
    assert [row[2] for row in rows] == ["first"]


async def test_a_row_that_is_given_up_ends_its_lease(
    connection: Connection, settings: Settings
) -> None:
    row = await a_job(connection, job_id="j", lease=7)
    async with link(settings) as one:
        assert (
            len(await one.run("bury_refused", {"id": row["id"], "lease": 7, "reason": "why"})) == 1
        )
    row = await the_job(connection, "j")
    assert (row["status"], row["lease"], row["error"]) == ("dlq", 8, "why")


@pytest.mark.parametrize("how", ["claimed meanwhile", "ended meanwhile"])
async def test_a_row_that_changed_meanwhile_is_not_given_up(
    connection: Connection, settings: Settings, how: str
) -> None:
    row = await a_job(connection, job_id="j", lease=7)
    change = {
        "claimed meanwhile": (
            "UPDATE job_logs SET lease = 8, status = 'processing', lease_until = now() + "
            "interval '1 min'"
        ),
        "ended meanwhile": "UPDATE job_logs SET status = 'completed', processed_at = now()",
    }[how]
    await connection.execute(change.encode())
    before = await the_job(connection, "j")
    async with link(settings) as one:
        assert (
            list(await one.run("bury_refused", {"id": row["id"], "lease": 7, "reason": "x"})) == []
        )
    assert await the_job(connection, "j") == before


async def test_claims_and_sweeps_leave_out_what_was_put_aside(
    connection: Connection, settings: Settings
) -> None:
    for name in ("aside", "free"):
        await a_job(connection, job_id=name)
    out = [str((await the_job(connection, "aside"))["id"])]
    async with link(settings) as one:
        assert [row[3] for row in await claim(one, aside=out)] == ["free"]
        assert await sweep(one, aside=out) == {}
        assert await sweep(one) == {"claim": ["aside"]}
