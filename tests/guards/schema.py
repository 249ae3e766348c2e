"""The guards of sql/migrations/: keys, CHECKs, and what the functions look after."""

from tests.guards import schema
from tests.guards.doors import DOORS
from tests.guards.later import LATER

ORDER = "engine/test_lock_order::test_rows_are_locked_in_the_order_of_their_ids"
ROW = "enqueue/test_once::test_a_thing_is_one_row"
LIE = "schema/test_contract_sql::test_an_update_that_leaves_a_lying_row_is_refused_by_name"
NOTHING = ""

LOOK = "SELECT * INTO offer FROM known_job(key, fingerprint); IF FOUND THEN RETURN offer; END IF;"
SECOND_LOOK = {f"owner)); {LOOK}": "owner));"}

SCHEMA = [
    # Keys
    schema(
        "0001_job_logs",
        "id",
        {"CONSTRAINT job_logs_pkey PRIMARY KEY (id),": NOTHING},
        "enqueue/test_once::test_a_job_is_one_row_whoever_inserts_it[id]",
    ),
    schema(
        "0001_job_logs",
        "job-id",
        {"CONSTRAINT unique_job_id UNIQUE (job_id),": NOTHING},
        "enqueue/test_once::test_a_job_is_one_row_whoever_inserts_it[job_id]",
    ),
    schema(
        "0001_job_logs",
        "type",
        {"job_type      text PRIMARY KEY": "job_type      text"},
        f"{ROW}[type]",
    ),
    schema(
        "0001_job_logs",
        "queue",
        {"queue      text PRIMARY KEY": "queue      text"},
        f"{ROW}[queue]",
    ),
    schema(
        "0001_job_logs",
        "worker",
        {"id         text PRIMARY KEY": "id         text"},
        f"{ROW}[worker]",
    ),
    schema(
        "0001_job_logs",
        "tombstone",
        {"id_hash  bytea PRIMARY KEY": "id_hash  bytea"},
        f"{ROW}[tombstone]",
    ),
    schema(
        "0001_job_logs",
        "claim-index",
        {
            "(queue, priority, run_after, id) WHERE processed_at IS NULL": "(queue, priority, run_after, id)"
        },
        "engine/test_fence::test_the_claim_index_has_only_live_rows",
    ),
    schema(
        "0001_job_logs",
        "equal-payload",
        {"IF said ~ $re$": "IF false AND said ~ $re$"},
        "enqueue/test_duplicates::test_equal_is_what_is_equal_as_jsonb[1-1.0]",
    ),
    schema(
        "0001_job_logs",
        "string-in-payload",
        {'("(?:[^"\\\\]|\\\\.)*")|(?:[.]0+': "(x^)|(?:[.]0+"},
        'enqueue/test_duplicates::test_equal_is_what_is_equal_as_jsonb[", 1.0,"-", 1,"]',
    ),
    # A row cannot lie
    schema(
        "0001_job_logs",
        "check-status",
        {
            (
                "CHECK (status IN ('enqueued', 'processing', 'completed', 'failed', 'dlq', "
                "'cancelled'))"
            ): "CHECK (true)"
        },
        f"{LIE}[status = 'done']",
    ),
    schema(
        "0001_job_logs",
        "check-ended",
        {
            "CHECK (status NOT IN ('completed', 'dlq', 'cancelled') OR processed_at IS NOT NULL)": "CHECK (true)"
        },
        f"{LIE}[enqueued-status = 'completed']",
    ),
    schema(
        "0001_job_logs",
        "check-live",
        {
            "CHECK (status IN ('completed', 'dlq', 'cancelled') OR processed_at IS NULL)": "CHECK (true)"
        },
        f"{LIE}[completed-status = 'enqueued']",
    ),
    schema(
        "0001_job_logs",
        "check-dead",
        {"CHECK ((status = 'dlq') = (dead_at IS NOT NULL))": "CHECK (true)"},
        f"{LIE}[completed-status = 'dlq']",
    ),
    schema(
        "0001_job_logs",
        "check-lease",
        {"CHECK ((status = 'processing') = (lease_until IS NOT NULL))": "CHECK (true)"},
        f"{LIE}[enqueued-status = 'processing']",
    ),
    schema(
        "0001_job_logs",
        "check-attempts-left",
        {
            "CHECK (status NOT IN ('enqueued', 'failed') OR attempt_count < max_attempts)": "CHECK (true)"
        },
        f"{LIE}[dlq-status = 'enqueued', processed_at = NULL, dead_at = NULL]",
    ),
    schema(
        "0001_job_logs",
        "check-attempts",
        {"CHECK (attempt_count >= 0 AND attempt_count <= max_attempts)": "CHECK (true)"},
        "engine/test_fence::test_no_attempt_is_counted_past_the_last",
    ),
    schema(
        "0001_job_logs",
        "check-priority",
        {"CHECK (priority BETWEEN 0 AND 9)": "CHECK (true)"},
        f"{LIE}[enqueued-priority = 10]",
    ),
    schema(
        "0001_job_logs",
        "check-run-after",
        {
            (
                "CHECK (run_after >= '1970-01-01 00:00:00+00' AND run_after < '9999-01-01 "
                "00:00:00+00')"
            ): "CHECK (true)"
        },
        f"{LIE}[enqueued-run_after = 'infinity']",
    ),
    # Enqueueing
    schema(
        "0002_enqueue_job",
        "lock",
        {
            "PERFORM pg_catalog.pg_advisory_xact_lock(limit_lock(offer_job.job_type, owner));": NOTHING
        },
        "schema/test_contract_sql::TestEnqueueJob::test_the_lock_lasts_to_the_callers_commit",
    ),
    schema(
        "0002_enqueue_job",
        "look-again",
        SECOND_LOOK,
        "engine/test_lock_order::test_a_duplicate_that_waited_is_not_refused_by_the_limit",
    ),
    schema(
        "0002_enqueue_job",
        "isolation",
        {
            "IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN": "IF false THEN"
        },
        "enqueue/test_enqueue::test_a_limit_cannot_be_counted_in_a_snapshot",
    ),
    schema(
        "0002_enqueue_job",
        "conflict",
        {"ON CONFLICT (job_id) DO NOTHING;": ";"},
        "enqueue/test_duplicates::test_when_queue_priority_time_and_attempts_do_not_count_for_same",
    ),
    schema(
        "0002_enqueue_job",
        "tombstone",
        {"IF NOT FOUND THEN RETURN (key, 'enqueued'": "IF true THEN RETURN (key, 'enqueued'"},
        "enqueue/test_duplicates::test_an_enqueue_that_races_with_retention_finds_the_tombstone[one]",
    ),
    schema(
        "0002_enqueue_job",
        "offer_jobs",
        {
            "PERFORM pg_advisory_xact_lock(bucket);": "NULL;",
            "ON CONFLICT (job_id) DO NOTHING RETURNING": "RETURNING",
        },
        why="0004 has another offer_jobs()",
    ),
    # Operating
    schema(
        "0003_operate_jobs",
        "cancel-status",
        {"j.status IN ('enqueued', 'failed', 'processing')": "true"},
        "schema/test_contract_sql::TestReplayAndCancel::test_what_cannot_be_done_is_said[cancel_job]",
    ),
    schema(
        "0003_operate_jobs",
        "cancel-fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "schema/test_contract_sql::TestReplayAndCancel::test_cancel_ends_a_live_job[processing]",
    ),
    schema(
        "0003_operate_jobs",
        "delete-status",
        {"AND j.status = 'dlq'": NOTHING},
        "operate/test_dead_letters::test_a_deleted_one_is_cancelled_and_keeps_its_id_and_place",
    ),
    schema(
        "0003_operate_jobs",
        "replay_jobs",
        {"j.status IN ('dlq', 'cancelled') ORDER BY j.id FOR NO KEY UPDATE": "true"},
        why="0004 has another replay_jobs()",
    ),
    schema(
        "0003_operate_jobs",
        "pause-conflict",
        {"ON CONFLICT (queue) DO NOTHING": NOTHING},
        "enqueue/test_once::test_a_queue_that_is_paused_twice_is_resumed_by_one_word",
    ),
    schema(
        "0003_operate_jobs",
        "ring-skip",
        {"FOR NO KEY UPDATE SKIP LOCKED": "FOR NO KEY UPDATE"},
        "engine/test_locks::test_two_rings_at_once_wake_different_workers",
    ),
    schema(
        "0003_operate_jobs",
        "ring-lock",
        {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING},
        "engine/test_locks::test_two_rings_at_once_wake_different_workers",
    ),
    *LATER,
    *DOORS,
]
