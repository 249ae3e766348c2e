"""Section 6 of the contract: what other programs and people do in SQL alone."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.errors import DuplicatePayload
from tests.support.factories import a_job, a_type, sql, the_job, value

pytestmark = pytest.mark.postgres(15, 18)

SIGN_IN = "user.signin.notification"


@pytest.fixture
async def sign_in_type(connection: AsyncConnection[Any]) -> None:
    await a_type(
        connection,
        job_type=SIGN_IN,
        limit_count=2,
        limit_window="1 h",
        user_from="userId",
        queue="mails",
        max_attempts=7,
    )


async def enqueue(
    connection: AsyncConnection[Any], job_id: str | None, **payload: Any
) -> dict[str, Any]:
    (row,) = await sql(
        connection,
        "SELECT * FROM enqueue_job(%s, %s::jsonb, job_id => %s)",
        [SIGN_IN, psycopg.types.json.Jsonb({"userId": "u1", **payload}), job_id],
    )
    return row


class TestEnqueueJob:
    async def test_the_example_of_the_contract(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        (row,) = await sql(
            connection,
            """SELECT * FROM enqueue_job('user.signin.notification',
                              '{"userId": "u1", "email": "a@example.com", "name": "A"}'::jsonb,
                              job_id => 'signin-u1-1', user_id => 'u1')""",
        )
        assert row == {
            "job_id": "signin-u1-1",
            "status": "enqueued",
            "created": True,
            "retry_after": None,
        }
        job = await the_job(connection, "signin-u1-1")
        assert (job["user_id"], job["queue"], job["priority"], job["max_attempts"]) == (
            "u1",
            "mails",
            5,
            7,
        )
        assert job["payload"]["email"] == "a@example.com"

    async def test_a_rollback_leaves_nothing(
        self, connection: AsyncConnection[Any], database_url: str, sign_in_type: None
    ) -> None:
        async with await AsyncConnection.connect(database_url) as mine:
            await enqueue(mine, "gone")
            assert await sql(mine, "SELECT job_id FROM job_logs")
            assert not await sql(connection, "SELECT job_id FROM job_logs")
            await mine.rollback()
        assert not await sql(connection, "SELECT job_id FROM job_logs")
        assert (await enqueue(connection, "gone"))["created"]

    async def test_a_job_comes_with_the_callers_own_writes(
        self, connection: AsyncConnection[Any], database_url: str, sign_in_type: None
    ) -> None:
        await sql(connection, "CREATE TABLE orders (id integer)")
        async with await AsyncConnection.connect(database_url) as mine:
            await sql(mine, "INSERT INTO orders VALUES (1)")
            await enqueue(mine, "with-order")
        assert (
            await value(
                connection, "SELECT count(*) FROM orders, job_logs WHERE job_id = 'with-order'"
            )
            == 1
        )

    async def test_the_limit_refuses_as_data(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        for number in range(2):
            assert (await enqueue(connection, f"in-{number}"))["created"]
        row = await enqueue(connection, "over")
        assert (row["status"], row["created"]) == (None, False)
        assert timedelta(minutes=59) < row["retry_after"] <= timedelta(hours=1)
        assert not await sql(connection, "SELECT job_id FROM job_logs WHERE job_id = 'over'")

    async def test_a_duplicate_is_never_refused_by_the_limit(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        for number in range(2):
            await enqueue(connection, f"in-{number}")
        row = await enqueue(connection, "in-0")
        assert row == {
            "job_id": "in-0",
            "status": "enqueued",
            "created": False,
            "retry_after": None,
        }

    async def test_another_payload_is_a_unique_violation(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        await enqueue(connection, "one", email="a@example.com")
        with pytest.raises(
            psycopg.errors.UniqueViolation, match="Job ID already used with another payload"
        ) as caught:
            await enqueue(connection, "one", email="b@example.com")
        assert caught.value.diag.constraint_name == "unique_job_id"
        assert str(DuplicatePayload("one")) in str(caught.value)

    async def test_an_id_is_made_up(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        first, second = await enqueue(connection, None), await enqueue(connection, None)
        assert first["created"]
        assert second["created"]
        assert first["job_id"] != second["job_id"]

    async def test_a_user_that_is_not_the_payloads_is_refused(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match="user_id is not the userId of the payload"
        ):
            await sql(
                connection,
                (
                    f"SELECT * FROM enqueue_job('{SIGN_IN}', '{{\"userId\": \"u1\"}}', user_id => "
                    "'u2')"
                ),
            )

    async def test_a_type_with_a_limit_needs_a_user_and_one_without_has_system(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs a user_id"):
            await sql(connection, f"SELECT * FROM enqueue_job('{SIGN_IN}', '{{}}')")
        await a_type(connection, job_type="plain")
        await sql(connection, "SELECT * FROM enqueue_job('plain', '{}', job_id => 'mine')")
        assert (await the_job(connection, "mine"))["user_id"] == "system"

    async def test_an_unknown_type_is_an_error_that_says_what_to_do(
        self, connection: AsyncConnection[Any]
    ) -> None:
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match="unknown job type nobodys"
        ) as caught:
            await sql(connection, "SELECT * FROM enqueue_job('nobodys', '{}')")
        assert "pgqueue migrate" in (caught.value.diag.message_hint or "")

    async def test_what_is_given_by_name_counts(self, connection: AsyncConnection[Any]) -> None:
        await a_type(connection, job_type="plain")
        await sql(
            connection,
            """SELECT * FROM enqueue_job('plain', '{}', job_id => 'x', user_id => 'u', queue => 'q',
                 priority => 2,
                                         run_after => now() + interval '1 day',
                                           max_attempts => 3)""",
        )
        job = await the_job(connection, "x")
        assert (job["user_id"], job["queue"], job["priority"], job["max_attempts"]) == (
            "u",
            "q",
            2,
            3,
        )
        assert job["run_after"] - job["created_at"] > timedelta(hours=23)

    async def test_the_lock_lasts_to_the_callers_commit(
        self, connection: AsyncConnection[Any], database_url: str, sign_in_type: None
    ) -> None:
        async with await AsyncConnection.connect(database_url) as mine:
            await enqueue(mine, "first")
            await sql(connection, "SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await enqueue(connection, "second")
            await mine.commit()
        assert (await enqueue(connection, "second"))["created"]


class TestABareInsert:
    async def test_is_a_valid_job_with_its_types_defaults(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        await sql(
            connection,
            (
                "INSERT INTO job_logs (job_id, job_type, user_id, payload) VALUES ('bare', "
                f"'{SIGN_IN}', 'u1', '{{}}')"
            ),
        )
        job = await the_job(connection, "bare")
        assert (job["status"], job["queue"], job["max_attempts"], job["attempt_count"]) == (
            "enqueued",
            "mails",
            7,
            0,
        )
        assert job["processed_at"] is None
        assert job["payload_digest"]

    async def test_of_a_type_that_nobody_published_has_the_usual_defaults(
        self, connection: AsyncConnection[Any]
    ) -> None:
        await sql(
            connection,
            (
                "INSERT INTO job_logs (job_id, job_type, user_id, payload) VALUES ('bare', 'x', "
                "'u1', '{}')"
            ),
        )
        job = await the_job(connection, "bare")
        assert (job["queue"], job["max_attempts"]) == ("default", 5)

    async def test_passes_the_limit_and_counts_in_it(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        for number in range(3):
            await sql(
                connection,
                (
                    f"INSERT INTO job_logs (job_id, job_type, user_id, payload) "
                    f"VALUES ('b{number}', '{SIGN_IN}', 'u1', '{{}}')"
                ),
            )
        assert (await enqueue(connection, "over"))["status"] is None

    async def test_is_the_same_job_to_enqueue_job(
        self, connection: AsyncConnection[Any], sign_in_type: None
    ) -> None:
        await sql(
            connection,
            f"""INSERT INTO job_logs (job_id, job_type, user_id, payload)
                VALUES ('same', '{SIGN_IN}', 'u1', '{{"userId": "u1"}}')""",
        )
        assert await enqueue(connection, "same") == {
            "job_id": "same",
            "status": "enqueued",
            "created": False,
            "retry_after": None,
        }


ENDED = "ended_job_needs_processed_at_use_cancel_job"
LIVE = "live_job_has_no_processed_at_use_replay_job_unless_completed"
DEAD = "only_workers_fill_dlq_leave_it_by_replay_job_or_delete_dead_job"
LEASE = "only_workers_start_processing_use_cancel_job_to_end_it"
WAITING = "waiting_job_has_attempts_left_use_replay_job_if_dead"


@pytest.mark.parametrize(
    ("status", "lie", "constraint"),
    [
        *(
            (status, f"status = '{end}'", ENDED)
            for status in ("enqueued", "failed")
            for end in ("completed", "dlq", "cancelled")
        ),
        *(("processing", f"status = '{end}'", ENDED) for end in ("completed", "dlq", "cancelled")),
        *(("processing", f"status = '{live}'", LEASE) for live in ("enqueued", "failed")),
        *((status, "status = 'processing'", LEASE) for status in ("enqueued", "failed")),
        ("processing", "status = 'cancelled', processed_at = now()", LEASE),
        *(
            (status, f"status = '{live}'", LIVE)
            for status in ("completed", "dlq", "cancelled")
            for live in ("enqueued", "failed")
        ),
        *((status, "status = 'processing'", LIVE) for status in ("completed", "dlq", "cancelled")),
        ("dlq", "status = 'enqueued', processed_at = NULL", DEAD),
        ("dlq", "status = 'enqueued', processed_at = NULL, dead_at = NULL", WAITING),
        *(("dlq", f"status = '{end}'", DEAD) for end in ("completed", "cancelled")),
        *((status, "status = 'dlq'", DEAD) for status in ("completed", "cancelled")),
        ("enqueued", "status = 'done'", "status_is_one_of_the_six"),
        ("enqueued", "run_after = 'infinity'", "run_after_is_a_day_before_year_9999"),
        ("enqueued", "priority = 10", "priority_is_0_to_9"),
        ("failed", "attempt_count = 99", "attempts_are_counted_from_0_to_max"),
    ],
)
async def test_an_update_that_leaves_a_lying_row_is_refused_by_name(
    connection: AsyncConnection[Any], status: str, lie: str, constraint: str
) -> None:
    before = await a_job(connection, status=status)
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        await connection.execute(f"UPDATE job_logs SET {lie}".encode())
    assert caught.value.diag.constraint_name == constraint
    assert await the_job(connection, before["job_id"]) == before


@pytest.mark.parametrize(
    ("constraint", "function", "takes"),
    [
        (ENDED, "cancel_job", ("enqueued", "failed", "processing")),
        (LEASE, "cancel_job", ("enqueued", "failed", "processing")),
        (LIVE, "replay_job", ("dlq", "cancelled")),
        (WAITING, "replay_job", ("dlq",)),
        (DEAD, "replay_job", ("dlq",)),
        (DEAD, "delete_dead_job", ("dlq",)),
    ],
)
async def test_the_function_that_a_name_says_does_it(
    connection: AsyncConnection[Any], constraint: str, function: str, takes: tuple[str, ...]
) -> None:
    assert function in constraint
    for status in takes:
        job = await a_job(connection, status=status)
        (answer,) = await sql(connection, f"SELECT * FROM {function}(%s)", [job["job_id"]])
        assert answer["changed"], (status, answer)


class TestReplayAndCancel:
    @pytest.mark.parametrize("status", ["dlq", "cancelled"])
    async def test_replay_sends_an_ended_job_back_with_attempts_from_0(
        self, connection: AsyncConnection[Any], status: str
    ) -> None:
        job = await a_job(connection, status=status)
        (row,) = await sql(connection, "SELECT * FROM replay_job(%s)", [job["job_id"]])
        assert (row["job_id"], row["status"], row["changed"]) == (job["job_id"], "enqueued", True)
        after = await the_job(connection, job["job_id"])
        assert (
            after["attempt_count"],
            after["processed_at"],
            after["dead_at"],
            after["error"],
        ) == (0, None, None, None)
        assert after["lease"] == job["lease"]
        assert [entry["was"] for entry in after["history"]] == [status]

    async def test_replay_takes_another_payload_and_keeps_the_old_one(
        self, connection: AsyncConnection[Any]
    ) -> None:
        job = await a_job(connection, status="dlq", payload={"email": "bad"})
        await sql(
            connection,
            """SELECT * FROM replay_job(%s, '{"email": "good@example.com"}')""",
            [job["job_id"]],
        )
        after = await the_job(connection, job["job_id"])
        assert after["payload"] == {"email": "good@example.com"}
        assert after["history"][-1]["payload"] == {"email": "bad"}

    @pytest.mark.parametrize("status", ["enqueued", "failed", "processing"])
    async def test_cancel_ends_a_live_job(
        self, connection: AsyncConnection[Any], status: str
    ) -> None:
        job = await a_job(connection, status=status)
        (row,) = await sql(connection, "SELECT * FROM cancel_job(%s)", [job["job_id"]])
        assert (row["status"], row["changed"]) == ("cancelled", True)
        after = await the_job(connection, job["job_id"])
        assert isinstance(after["processed_at"], datetime)
        assert after["lease"] > job["lease"]

    @pytest.mark.parametrize(
        ("function", "status"), [("replay_job", "completed"), ("cancel_job", "dlq")]
    )
    async def test_what_cannot_be_done_is_said(
        self, connection: AsyncConnection[Any], function: str, status: str
    ) -> None:
        job = await a_job(connection, status=status)
        (row,) = await sql(connection, f"SELECT * FROM {function}(%s)", [job["job_id"]])
        assert (row["status"], row["changed"]) == (status, False)
        assert row["message"].startswith(f"Job is {status}, not")
        (row,) = await sql(connection, f"SELECT * FROM {function}('nobody')")
        assert (row["status"], row["changed"], row["message"]) == (None, False, "Job not found")


class TestQueriesThatPeopleHave:
    async def test_they_work_verbatim(self, connection: AsyncConnection[Any]) -> None:
        for number in range(12):
            await a_job(connection, job_type=SIGN_IN, user_id="user-123", job_id=f"new-{number}")
        await a_job(connection, status="failed", job_id="failed-1")
        await a_job(connection, status="failed", job_id="failed-2")
        await a_job(
            connection,
            status="dlq",
            job_id="dead-1",
            created_at=timedelta(hours=-2),
            job_type=SIGN_IN,
            user_id="user-123",
        )

        newest = await sql(connection, "SELECT * FROM job_logs ORDER BY created_at DESC LIMIT 10;")
        assert [row["job_id"] for row in newest][:3] == ["failed-2", "failed-1", "new-11"]
        assert len(newest) == 10
        failed = await sql(
            connection, "SELECT * FROM job_logs WHERE status = 'failed' ORDER BY created_at DESC;"
        )
        assert [row["job_id"] for row in failed] == ["failed-2", "failed-1"]
        dead = await sql(
            connection, "SELECT * FROM job_logs WHERE status = 'dlq' ORDER BY created_at DESC;"
        )
        assert [row["job_id"] for row in dead] == ["dead-1"]
        counted = await value(
            connection,
            """SELECT COUNT(*) FROM job_logs WHERE user_id = 'user-123'
                 AND job_type = 'user.signin.notification'
      AND created_at > NOW() - INTERVAL '1 hour';""",
        )
        assert counted == 12

    async def test_the_columns_are_those_of_the_contract(
        self, connection: AsyncConnection[Any]
    ) -> None:
        rows = await sql(
            connection,
            """SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute
                WHERE attrelid = 'job_logs'::regclass AND attnum > 0 AND NOT attisdropped""",
        )
        columns = {row["attname"]: row["type"] for row in rows}
        expected = {
            "id",
            "job_id",
            "job_type",
            "user_id",
            "status",
            "payload",
            "error",
            "stack_trace",
            "attempt_count",
        }
        assert expected | {"created_at", "processed_at", "run_after"} <= set(columns)
        assert (columns["id"], columns["payload"]) == ("uuid", "jsonb")
        assert all(
            columns[name] == "timestamp with time zone"
            for name in ("created_at", "processed_at", "run_after")
        )
