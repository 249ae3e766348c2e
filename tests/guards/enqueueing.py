"""The guards of the functions that enqueue."""

from tests.guards import function

LOCKS = "engine/test_lock_order::test_the_locks_of_users_are_taken_in_order"
WAITS = "engine/test_lock_order::test_many_jobs_wait_for_the_lock_of_their_users"
INSERTED = "engine/test_lock_order::test_many_jobs_are_inserted_in_the_order_of_their_ids"
RACE = "engine/test_lock_order::test_many_jobs_that_race_with_retention_find_the_tombstone"

FIRST = "schema/test_doors::TestLimits::test_the_earlier_jobs_of_a_user_take_the_places"

NOTHING = ""
ISOLATION = "AND pg_catalog.current_setting('transaction_isolation') <> 'read committed'"

ENQUEUEING = [
    # May this job in?
    function(
        "pgqueue_job_type",
        "isolation",
        {ISOLATION: "AND false"},
        "enqueue/test_enqueue::test_a_limit_cannot_be_counted_in_a_snapshot",
        "engine/test_lock_order::test_many_jobs_with_a_limit_are_not_counted_in_a_snapshot",
    ),
    function(
        "pgqueue_admit",
        "limit",
        {"IF wait IS NULL THEN moment": "IF true THEN moment"},
        "schema/test_plans::test_the_limit_reads_as_many_rows_as_it_allows",
    ),
    function(
        "pgqueue_admit",
        "duplicate-first",
        {
            "IF FOUND THEN RETURN answer; END IF; IF wait IS NOT NULL THEN": (
                "IF FOUND AND wait IS NULL THEN RETURN answer; END IF; IF wait IS NOT NULL THEN"
            )
        },
        "engine/test_lock_order::test_a_duplicate_that_waited_is_not_refused_by_the_limit",
    ),
    function(
        "pgqueue_admit",
        "conflict",
        {"ON CONFLICT (job_id) DO NOTHING;": ";"},
        "enqueue/test_duplicates::test_when_queue_priority_time_and_attempts_do_not_count_for_same",
    ),
    function(
        "pgqueue_admit",
        "tombstone",
        {"t.id_hash = pgqueue_id_hash(pgqueue_admit.job_id)": "false"},
        "enqueue/test_duplicates::test_an_enqueue_that_races_with_retention_finds_the_tombstone[one]",
    ),
    # One
    function(
        "pgqueue_try_enqueue",
        "lock",
        {"PERFORM pg_catalog.pg_advisory_xact_lock(pgqueue_limit_lock(job_type, owner));": NOTHING},
        "schema/test_contract_sql::TestEnqueueJob::test_the_lock_lasts_to_the_callers_commit",
    ),
    # Many
    function(
        "pgqueue_late_jobs",
        "lock",
        {"PERFORM pg_catalog.pg_advisory_xact_lock(bucket);": "NULL;"},
        f"{WAITS}[pgqueue_enqueue_many]",
        f"{WAITS}[pgqueue_enqueue_group]",
    ),
    function(
        "pgqueue_late_jobs",
        "lock-order",
        {"ORDER BY 1 LOOP": "ORDER BY 1 DESC LOOP"},
        f"{LOCKS}[pgqueue_enqueue_many]",
        f"{LOCKS}[pgqueue_enqueue_group]",
    ),
    function(
        "pgqueue_late_jobs",
        "places",
        {"n.nth > n.limit_count OR n.nth + (SELECT": "n.nth > n.limit_count OR 1 + (SELECT"},
        f"{FIRST}[pgqueue_enqueue_many]",
    ),
    function(
        "pgqueue_rows",
        "order",
        {'ORDER BY i.job_id COLLATE "C", i.ord': NOTHING},
        f"{INSERTED}[unlimited]",
    ),
    function(
        "pgqueue_rows",
        "late",
        {"WHERE late IS NULL OR NOT late ? i.ord::text": NOTHING},
        f"{FIRST}[pgqueue_enqueue_many]",
    ),
    function(
        "pgqueue_enqueue_many",
        "conflict",
        {"AS r ON CONFLICT (job_id) DO NOTHING": "AS r"},
        f"{INSERTED}[unlimited]",
        "engine/test_lock_order::test_a_group_with_a_limit_knows_ids_that_are_taken",
    ),
    function(
        "pgqueue_enqueue_many",
        "again",
        {"EXCEPTION WHEN unique_violation": "EXCEPTION WHEN division_by_zero"},
        f"{INSERTED}[unlimited]",
    ),
    function(
        "pgqueue_enqueue_many",
        "tombstone",
        {"j.job_id = m.job_id AND t.id_hash = pgqueue_id_hash(m.job_id)": "false"},
        f"{RACE}[unlimited]",
        f"{RACE}[named users]",
    ),
    function(
        "pgqueue_enqueue_many",
        "hurry",
        {
            "OR NOT EXISTS ( SELECT FROM pg_catalog.jsonb": (
                "OR true OR NOT EXISTS ( SELECT FROM pg_catalog.jsonb"
            )
        },
        f"{RACE}[unlimited]",
    ),
]
