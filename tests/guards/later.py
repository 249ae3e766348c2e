"""The guards of the migrations that came later."""

from tests.guards import Guard, schema

ORDER = "engine/test_lock_order::test_rows_are_locked_in_the_order_of_their_ids"
INSERTED = "engine/test_lock_order::test_many_jobs_are_inserted_in_the_order_of_their_ids"
RACE = "engine/test_lock_order::test_many_jobs_that_race_with_retention_find_the_tombstone"
ROW = "enqueue/test_once::test_a_thing_is_one_row"

NOTHING = ""
BY_ID = 'ORDER BY i.job_id COLLATE "C", i.ord'
LOOP = "limit_count IS NOT NULL ORDER BY 1 LOOP"
LOOP_BACKWARDS = "limit_count IS NOT NULL ORDER BY 1 DESC LOOP"


def later(what: str, swaps: dict[str, str], *tests: str, why: str = "") -> Guard:
    return schema("0004_dependencies_and_groups", what, swaps, *tests, why=why)


LATER = [
    later(
        "replay-status",
        {"j.status IN ('dlq', 'cancelled')": "true"},
        "operate/test_dead_letters::test_only_what_is_dead_or_cancelled_can_be_replayed[processing]",
    ),
    later(
        "replay-lock",
        {"ORDER BY j.id FOR NO KEY UPDATE ), placed": "ORDER BY j.id ), placed"},
        "engine/test_locks::test_two_replays_at_once_are_one",
    ),
    later(
        "replay-order",
        {"ORDER BY j.id FOR NO KEY UPDATE ), placed": "FOR NO KEY UPDATE ), placed"},
        f"{ORDER}[replay]",
    ),
    # Enqueueing many
    later(
        "offer_jobs-lock",
        {f"i.{LOOP} PERFORM pg_catalog.pg_advisory_xact_lock(bucket);": f"i.{LOOP} NULL;"},
        "engine/test_lock_order::test_many_jobs_wait_for_the_lock_of_their_users[offer_jobs]",
    ),
    later(
        "offer_jobs-lock-order",
        {f"i.{LOOP}": f"i.{LOOP_BACKWARDS}"},
        "engine/test_lock_order::test_the_locks_of_users_are_taken_in_order[offer_jobs]",
    ),
    later(
        "offer_jobs-isolation",
        {
            "IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' AND": "IF false AND"
        },
        "engine/test_lock_order::test_many_jobs_with_a_limit_are_not_counted_in_a_snapshot",
    ),
    later(
        "offer_jobs-conflict",
        {f"{BY_ID} ON CONFLICT (job_id) DO NOTHING": BY_ID},
        f"{INSERTED}[offer_jobs]",
    ),
    later(
        "offer_jobs-order",
        {f"{BY_ID} ON CONFLICT": "ON CONFLICT"},
        f"{INSERTED}[offer_jobs]",
    ),
    later(
        "offer_jobs-tombstone",
        {"j.job_id = i.job_id AND t.id_hash = job_id_hash(i.job_id)": "false"},
        f"{RACE}[offer_jobs]",
    ),
    later(
        "offer_many-conflict",
        {"AS r ON CONFLICT (job_id) DO NOTHING": "AS r"},
        f"{INSERTED}[offer_many]",
    ),
    later(
        "offer_many-again",
        {"EXCEPTION WHEN unique_violation": "EXCEPTION WHEN division_by_zero"},
        f"{INSERTED}[offer_many]",
    ),
    later(
        "offer_many-order",
        {f"{BY_ID} $$": "$$"},
        f"{INSERTED}[offer_many]",
    ),
    later(
        "offer_many-tombstone",
        {"j.job_id = m.job_id AND t.id_hash = job_id_hash(m.job_id)": "false"},
        f"{RACE}[offer_many]",
    ),
    later(
        "offer_many-hurry",
        {
            "OR NOT EXISTS (SELECT FROM pg_catalog.jsonb": "OR true OR NOT EXISTS (SELECT FROM pg_catalog.jsonb"
        },
        f"{RACE}[offer_many]",
    ),
    later(
        "offer_group-lock",
        {f"t.{LOOP} PERFORM pg_catalog.pg_advisory_xact_lock(bucket);": f"t.{LOOP} NULL;"},
        "engine/test_lock_order::test_many_jobs_wait_for_the_lock_of_their_users[offer_group]",
    ),
    later(
        "offer_group-conflict",
        {"AS last)) ON CONFLICT (job_id) DO NOTHING;": "AS last));"},
        "engine/test_lock_order::test_a_group_with_a_limit_knows_ids_that_are_taken",
    ),
    later(
        "offer_group-tombstone",
        {"t.id_hash = job_id_hash(item.job_id)": "false"},
        "engine/test_lock_order::test_a_group_with_a_limit_knows_ids_that_are_taken",
    ),
    later(
        "offer_group-lock-order",
        {f"t.{LOOP}": f"t.{LOOP_BACKWARDS}"},
        "engine/test_lock_order::test_the_locks_of_users_are_taken_in_order[offer_group]",
    ),
    later(
        "offer_group-order",
        {f"{BY_ID} LOOP": "ORDER BY i.ord LOOP"},
        "engine/test_lock_order::test_jobs_of_a_group_are_inserted_in_the_order_of_their_ids",
    ),
    # The circuit breaker
    later("dependency", {"dependency text PRIMARY KEY": "dependency text"}, f"{ROW}[dependency]"),
    later(
        "failed-conflict",
        {"(dependency_failed.dependency) ON CONFLICT DO NOTHING": "(dependency_failed.dependency)"},
        "engine/test_probes::test_a_dependency_is_one_row_however_often_it_fails",
    ),
    later(
        "failed-lock",
        {
            "d.dependency = dependency_failed.dependency FOR UPDATE": "d.dependency = dependency_failed.dependency"
        },
        "engine/test_probes::test_failures_that_are_told_at_once_add_up",
    ),
    later(
        "failed-old",
        {"AND j.started_at < was.closed_at AND": "AND false AND"},
        "engine/test_refused_jobs::test_failures_that_began_before_it_closed_do_not_count",
    ),
    later(
        "probed-fence",
        {"AND d.probe_id = probe AND d.probe_lease = dependency_probed.lease": NOTHING},
        "engine/test_breaker::test_a_probe_whose_worker_died_is_replaced_and_decides_nothing",
    ),
    later(
        "probed-worker",
        {"AND d.probe_worker = worker": NOTHING},
        "engine/test_breaker::test_a_probe_that_a_failover_has_undone_decides_nothing",
    ),
    later(
        "probe-skip",
        {"ORDER BY d.probe_at FOR UPDATE SKIP LOCKED": "ORDER BY d.probe_at FOR UPDATE"},
        "engine/test_probes::test_a_probe_that_somebody_else_is_starting_is_not_waited_for",
    ),
    later(
        "probe-lock",
        {"ORDER BY d.probe_at FOR UPDATE SKIP LOCKED": "ORDER BY d.probe_at"},
        "engine/test_probes::test_a_dependency_that_was_tried_while_it_was_chosen_is_not_tried_again",
    ),
    later(
        "probe-fresh",
        {"ORDER BY head.attempt_count > 0, head.run_after": "ORDER BY head.run_after"},
        "engine/test_refused_jobs::test_a_probe_is_a_job_that_has_not_failed[in its lane]",
    ),
    later(
        "probe-fresh-lane",
        {"ORDER BY lane.failed, p.priority": "ORDER BY p.priority"},
        "engine/test_refused_jobs::test_a_probe_is_a_job_that_has_not_failed[in a later lane]",
    ),
    later(
        "probe-lease",
        {"AND j.lease = open.probe_lease": NOTHING},
        "engine/test_probes::test_a_probe_holds_as_long_as_its_lease[another has its job]",
    ),
    later(
        "probe-expired",
        {"AND j.lease_until > now()": NOTHING},
        "engine/test_probes::test_a_probe_holds_as_long_as_its_lease[its lease ran out]",
    ),
    later(
        "probe-running",
        {"open.probe_lease AND j.status = 'processing'": "open.probe_lease"},
        why="lease_until is null in every other state",
    ),
    later(
        "probe-live",
        {"j.priority = p.priority AND j.processed_at IS NULL": "j.priority = p.priority"},
        why="it is there for the index; the status says the same",
    ),
    later(
        "probe-status",
        {
            "AND j.status IN ('enqueued', 'failed') AND j.run_after <= now()": "AND j.run_after <= now()"
        },
        "engine/test_probes::test_a_job_that_runs_is_no_probe",
    ),
    later(
        "probe-status-again",
        {"j.id = taken AND j.status IN ('enqueued', 'failed')": "j.id = taken"},
        "engine/test_probes::test_a_job_that_was_claimed_while_it_was_chosen_is_no_probe",
    ),
    later(
        "probe-job-skip",
        {"FOR NO KEY UPDATE SKIP LOCKED": "FOR NO KEY UPDATE"},
        "engine/test_probes::test_a_job_that_somebody_has_locked_is_no_probe",
    ),
    later(
        "probe-job-lock",
        {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING},
        "engine/test_probes::test_a_job_that_somebody_has_locked_is_no_probe",
    ),
    later(
        "probe-mark",
        {"SET status = 'processing', attempt_count": "SET status = j.status, attempt_count"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
    later(
        "probe-attempt",
        {"attempt_count = j.attempt_count + 1": "attempt_count = j.attempt_count"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
    later(
        "probe-fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
]
