"""The guards of sql/migrations/ and sql/functions/: keys, CHECKs, and what the functions see to."""

from tests.guards import function, table
from tests.guards.doors import DOORS
from tests.guards.enqueueing import ENQUEUEING
from tests.guards.probes import PROBES

ORDER = "engine/test_lock_order::test_rows_are_locked_in_the_order_of_their_ids"
ROW = "enqueue/test_once::test_a_thing_is_one_row"
LIE = "schema/test_contract_sql::test_an_update_that_leaves_a_lying_row_is_refused_by_name"
NOTHING = ""

SCHEMA = [
    # Keys
    table(
        "id",
        {"CONSTRAINT job_logs_pkey PRIMARY KEY (id),": NOTHING},
        "enqueue/test_once::test_a_job_is_one_row_whoever_inserts_it[id]",
    ),
    table(
        "job-id",
        {"CONSTRAINT unique_job_id UNIQUE (job_id),": NOTHING},
        "enqueue/test_once::test_a_job_is_one_row_whoever_inserts_it[job_id]",
    ),
    table(
        "type",
        {"job_type      text PRIMARY KEY": "job_type      text"},
        f"{ROW}[type]",
    ),
    table(
        "queue",
        {"queue      text PRIMARY KEY": "queue      text"},
        f"{ROW}[queue]",
    ),
    table(
        "worker",
        {"id         text PRIMARY KEY": "id         text"},
        f"{ROW}[worker]",
    ),
    table(
        "tombstone",
        {"id_hash  bytea PRIMARY KEY": "id_hash  bytea"},
        f"{ROW}[tombstone]",
    ),
    table(
        "function",
        {"name text PRIMARY KEY": "name text"},
        "schema/test_migrations::TestForward::test_a_second_run_changes_nothing",
    ),
    table(
        "claim-index",
        {
            "(queue, priority, run_after, id) WHERE processed_at IS NULL": (
                "(queue, priority, run_after, id)"
            )
        },
        "engine/test_fence::test_the_claim_index_has_only_live_rows",
    ),
    function(
        "pgqueue_digest",
        "equal-payload",
        {"IF said ~ $re$": "IF false AND said ~ $re$"},
        "enqueue/test_duplicates::test_equal_is_what_is_equal_as_jsonb[1-1.0]",
    ),
    function(
        "pgqueue_digest",
        "string-in-payload",
        {'("(?:[^"\\\\]|\\\\.)*")|(?:[.]0+': "(x^)|(?:[.]0+"},
        'enqueue/test_duplicates::test_equal_is_what_is_equal_as_jsonb[", 1.0,"-", 1,"]',
    ),
    # A row cannot lie
    table(
        "check-status",
        {
            (
                "CHECK (status IN ('enqueued', 'processing', 'completed', 'failed', 'dlq', "
                "'cancelled'))"
            ): "CHECK (true)"
        },
        f"{LIE}[status = 'done']",
    ),
    table(
        "check-ended",
        {
            (
                "CHECK (status NOT IN ('completed', 'dlq', 'cancelled') OR "
                "processed_at IS NOT NULL)"
            ): "CHECK (true)"
        },
        f"{LIE}[enqueued-status = 'completed']",
    ),
    table(
        "check-live",
        {
            "CHECK (status IN ('completed', 'dlq', 'cancelled') OR processed_at IS NULL)": (
                "CHECK (true)"
            )
        },
        f"{LIE}[completed-status = 'enqueued']",
    ),
    table(
        "check-dead",
        {"CHECK ((status = 'dlq') = (dead_at IS NOT NULL))": "CHECK (true)"},
        f"{LIE}[completed-status = 'dlq']",
    ),
    table(
        "check-lease",
        {"CHECK ((status = 'processing') = (lease_until IS NOT NULL))": "CHECK (true)"},
        f"{LIE}[enqueued-status = 'processing']",
    ),
    table(
        "check-attempts-left",
        {
            "CHECK (status NOT IN ('enqueued', 'failed') OR attempt_count < max_attempts)": (
                "CHECK (true)"
            )
        },
        f"{LIE}[dlq-status = 'enqueued', processed_at = NULL, dead_at = NULL]",
    ),
    table(
        "check-attempts",
        {"CHECK (attempt_count >= 0 AND attempt_count <= max_attempts)": "CHECK (true)"},
        "engine/test_fence::test_no_attempt_is_counted_past_the_last",
    ),
    table(
        "check-priority",
        {"CHECK (priority BETWEEN 0 AND 9)": "CHECK (true)"},
        f"{LIE}[enqueued-priority = 10]",
    ),
    table(
        "check-run-after",
        {
            (
                "CHECK (run_after >= '1970-01-01 00:00:00+00' AND run_after < '9999-01-01 "
                "00:00:00+00')"
            ): "CHECK (true)"
        },
        f"{LIE}[enqueued-run_after = 'infinity']",
    ),
    # Operating
    function(
        "cancel_job",
        "status",
        {"j.status IN ('enqueued', 'failed', 'processing')": "true"},
        "schema/test_contract_sql::TestReplayAndCancel::test_what_cannot_be_done_is_said[cancel_job]",
    ),
    function(
        "cancel_job",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "schema/test_contract_sql::TestReplayAndCancel::test_cancel_ends_a_live_job[processing]",
    ),
    function(
        "delete_dead_job",
        "status",
        {"AND j.status = 'dlq'": NOTHING},
        "operate/test_dead_letters::test_a_deleted_one_is_cancelled_and_keeps_its_id_and_place",
    ),
    function(
        "replay_jobs",
        "status",
        {"j.status IN ('dlq', 'cancelled')": "true"},
        "operate/test_dead_letters::test_only_what_is_dead_or_cancelled_can_be_replayed[processing]",
    ),
    function(
        "replay_jobs",
        "lock",
        {"ORDER BY j.id FOR NO KEY UPDATE": "ORDER BY j.id"},
        "engine/test_locks::test_two_replays_at_once_are_one",
    ),
    function(
        "replay_jobs",
        "order",
        {"ORDER BY j.id FOR NO KEY UPDATE": "FOR NO KEY UPDATE"},
        f"{ORDER}[replay]",
    ),
    function(
        "pause_queue",
        "conflict",
        {"ON CONFLICT (queue) DO NOTHING": NOTHING},
        "enqueue/test_once::test_a_queue_that_is_paused_twice_is_resumed_by_one_word",
    ),
    function(
        "ring_doorbell",
        "skip",
        {"FOR NO KEY UPDATE SKIP LOCKED": "FOR NO KEY UPDATE"},
        "engine/test_locks::test_two_rings_at_once_wake_different_workers",
    ),
    function(
        "ring_doorbell",
        "lock",
        {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING},
        "engine/test_locks::test_two_rings_at_once_wake_different_workers",
    ),
    *ENQUEUEING,
    *PROBES,
    *DOORS,
]
