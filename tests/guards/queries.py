"""The guards of sql/queries/."""

from tests.guards import Guard, query

UNDONE = "engine/test_leases::test_a_claim_that_a_failover_has_undone_is_no_claim"
AGAIN = "engine/test_leases::test_an_attempt_that_its_own_worker_has_rescued_changes_nothing"
LOST = "engine/test_leases::test_a_worker_that_lost_its_lease_changes_nothing"
ENDED = "engine/test_fence::test_an_attempt_that_has_ended_does_not_end_again"
WAITED = "engine/test_locks::test_an_outcome_that_waited_for_a_cancel_finds_its_lease_gone"
PASSES = "engine/test_locks::test_nobody_waits_for_a_job_that_somebody_has_locked"
ORDER = "engine/test_lock_order::test_rows_are_locked_in_the_order_of_their_ids"
SWEEP = "engine/test_locks::test_a_sweep_takes_nothing_that_changed_after_it_was_read"
DAY_OFF = "engine/test_clock_leaps::test_after_a_day_off"
LIVE = "engine/test_fence::test_who_asks_for_live_rows_reads_the_index_of_live_rows"
NOTHING = ""
ORDERED = "ORDER BY j.id FOR NO KEY UPDATE OF j"
UNORDERED = "FOR NO KEY UPDATE OF j"
UNLOCKED = "ORDER BY j.id"


def holder(statement: str, verb: str) -> Guard:
    """The name in the fence."""
    return query(
        statement,
        "worker",
        {"j.locked_by = %(worker)s": "%(worker)s::text IS NOT NULL"},
        f"{UNDONE}[{verb}]",
    )


def one_outcome(statement: str, lease: str, verb: str) -> list[Guard]:
    """The fence."""
    return [
        holder(statement, verb),
        query(
            statement, "lease", {f"j.lease = {lease}": f"{lease} IS NOT NULL"}, f"{AGAIN}[{verb}]"
        ),
        query(statement, "status", {"j.status = 'processing'": "true"}, f"{ENDED}[failed-{verb}]"),
    ]


def outcome(statement: str, given: str, verb: str) -> list[Guard]:
    """The guards of every statement that writes for several attempts."""
    return [
        *one_outcome(statement, f"{given}.lease", verb),
        query(statement, "lock", {ORDERED: UNLOCKED}, f"{WAITED}[{verb}]"),
        query(statement, "order", {ORDERED: UNORDERED}, f"{ORDER}[{verb}]"),
    ]


QUERIES = [
    *one_outcome("ack_jobs", "a.lease", "complete"),
    *one_outcome("complete_job", "%(lease)s", "own transaction"),
    *one_outcome("save_progress", "%(lease)s", "progress"),
    *outcome("fail_jobs", "o", "retry"),
    *outcome("shelve_jobs", "h", "no handler"),
    *outcome("intend_effects", "h", "intend"),
    # Leases
    query(
        "extend_leases",
        "lease",
        {"JOIN job_logs j ON j.id = h.id AND j.lease = h.lease": "JOIN job_logs j ON j.id = h.id"},
        f"{AGAIN}[extend]",
    ),
    query(
        "extend_leases",
        "worker",
        {
            "AND j.locked_by = %(worker)s AND j.status = 'processing' ORDER": (
                "AND j.status = 'processing' ORDER"
            )
        },
        f"{UNDONE}[extend]",
    ),
    query(
        "extend_leases",
        "lost-worker",
        {
            "AND j.locked_by = %(worker)s AND j.status = 'processing')": (
                "AND j.status = 'processing')"
            )
        },
        f"{UNDONE}[extend]",
    ),
    query(
        "extend_leases",
        "status",
        {" AND j.status = 'processing' ORDER": " ORDER"},
        f"{ENDED}[failed-extend]",
    ),
    query(
        "extend_leases",
        "skip",
        {"OF j SKIP LOCKED": "OF j"},
        "engine/test_locks::test_an_extension_waits_for_nobody",
    ),
    query(
        "extend_leases",
        "lock",
        {"FOR NO KEY UPDATE OF j SKIP LOCKED": NOTHING},
        "engine/test_locks::test_an_extension_waits_for_nobody",
    ),
    query(
        "extend_leases",
        "lost-lease",
        {"j WHERE j.id = h.id AND j.lease = h.lease": "j WHERE j.id = h.id"},
        (
            "engine/test_fence::test_an_extension_tells_that_a_lease_is_lost[its own worker has it "
            "again]"
        ),
    ),
    query(
        "extend_leases",
        "lost-status",
        {" AND j.status = 'processing')": ")"},
        "engine/test_fence::test_an_extension_tells_that_a_lease_is_lost[it has ended]",
    ),
    holder("confirm_acks", "complete"),
    query(
        "confirm_acks",
        "lease",
        {"j.lease = a.lease": "true"},
        "engine/test_leases::test_whoever_takes_a_running_job_away_ends_the_lease_first[cancel-complete]",
    ),
    query(
        "confirm_acks",
        "status",
        {"j.status <> 'processing'": "true"},
        "engine/test_fence::test_an_ack_is_not_confirmed_while_its_attempt_runs",
    ),
    query(
        "release_orphans",
        "worker",
        {"j.locked_by = %(worker)s": "%(worker)s::text IS NOT NULL"},
        f"{LOST}[release]",
    ),
    query(
        "release_orphans", "status", {"j.status = 'processing'": "true"}, f"{ENDED}[failed-release]"
    ),
    query(
        "release_orphans",
        "lease",
        {"h.lease = j.lease": "true"},
        "engine/test_fence::test_an_orphan_is_known_by_its_lease",
    ),
    query(
        "release_orphans",
        "live",
        {"j.processed_at IS NULL AND ": NOTHING},
        f"{LIVE}[release_orphans]",
    ),
    query("release_orphans", "skip", {"SKIP LOCKED": NOTHING}, f"{PASSES}[release]"),
    query(
        "release_orphans", "lock", {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING}, f"{PASSES}[release]"
    ),
    # Claims
    query(
        "claim_jobs",
        "status",
        {"j.status IN ('enqueued', 'failed')": "true"},
        "engine/test_claims::test_a_claim_takes_no_more_than_asked",
    ),
    query(
        "claim_jobs",
        "live",
        {"j.processed_at IS NULL AND j.status": "j.status"},
        f"{LIVE}[claim_jobs]",
    ),
    query(
        "claim_jobs",
        "live-later",
        {"j.processed_at IS NULL AND j.run_after > now()": "j.run_after > now()"},
        f"{LIVE}[claim_jobs]",
    ),
    query(
        "claim_jobs",
        "due",
        {"j.run_after <= now()": "true"},
        "engine/test_claims::test_a_claim_takes_what_is_due_oldest_first_and_by_priority",
    ),
    query(
        "claim_jobs",
        "pause",
        {"WHERE NOT room.paused": ""},
        "engine/test_claims::test_a_paused_queue_is_not_claimed",
    ),
    query(
        "claim_jobs",
        "breaker",
        {"WHERE b.state <> 'closed'))": "WHERE false))"},
        "engine/test_breaker::test_neither_claims_nor_sweeps_start_what_depends_on_it",
    ),
    query("claim_jobs", "skip", {"SKIP LOCKED": NOTHING}, f"{PASSES}[claim]"),
    query("claim_jobs", "lock", {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING}, f"{PASSES}[claim]"),
    query(
        "claim_jobs",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "engine/test_claims::test_a_claim_writes_down_attempt_lease_and_holder",
    ),
    query(
        "claim_jobs",
        "attempt",
        {"attempt_count = j.attempt_count + 1": "attempt_count = j.attempt_count"},
        "engine/test_claims::test_a_claim_writes_down_attempt_lease_and_holder",
    ),
    query(
        "claim_jobs",
        "mark",
        {"SET status = 'processing'": "SET status = j.status"},
        "engine/test_claims::test_a_claim_writes_down_attempt_lease_and_holder",
    ),
    query(
        "claim_jobs",
        "aside",
        {"AND j.id <> ALL (%(aside)s::uuid[])": NOTHING},
        "engine/test_refusals::test_claims_and_sweeps_leave_out_what_was_put_aside",
    ),
    # Rows that no statement gets past
    query(
        "next_in_lane",
        "live",
        {"AND j.processed_at IS NULL": NOTHING},
        "engine/test_refusals::test_what_waits_in_a_lane_is_looked_at_in_its_order",
    ),
    query(
        "next_in_lane",
        "aside",
        {"AND j.id <> ALL (%(aside)s::uuid[])": NOTHING},
        "engine/test_refusals::test_what_waits_in_a_lane_is_looked_at_in_its_order",
    ),
    query(
        "bury_refused",
        "lease",
        {"AND j.lease = %(lease)s": NOTHING},
        (
            "engine/test_refusals::test_a_row_that_changed_meanwhile_is_not_given_up[claimed "
            "meanwhile]"
        ),
    ),
    query(
        "bury_refused",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "engine/test_refusals::test_a_row_that_is_given_up_ends_its_lease",
    ),
    query(
        "bury_refused",
        "live",
        {"AND j.processed_at IS NULL": NOTHING},
        "engine/test_refusals::test_a_row_that_changed_meanwhile_is_not_given_up[ended meanwhile]",
    ),
    # Sweeps
    query(
        "sweep_jobs",
        "aside",
        {"AND j.id <> ALL (%(aside)s::uuid[])": NOTHING},
        "engine/test_refusals::test_claims_and_sweeps_leave_out_what_was_put_aside",
    ),
    query(
        "sweep_jobs",
        "live",
        {"lane.priority AND j.processed_at IS NULL": "lane.priority"},
        f"{LIVE}[sweep_jobs]",
    ),
    query(
        "sweep_jobs",
        "waiting",
        {
            "WHEN s.status <> 'processing' THEN s.run_after <= now()": (
                "WHEN s.status <> 'processing' THEN false"
            )
        },
        "engine/test_sweeps::test_stragglers_behind_the_cursor_are_claimed",
    ),
    query(
        "sweep_jobs",
        "running",
        {"WHEN s.status <> 'processing' THEN 'claim'": "WHEN false THEN 'claim'"},
        "engine/test_sweeps::test_stragglers_behind_the_cursor_are_claimed",
    ),
    query(
        "sweep_jobs",
        "expired",
        {"s.lease_until <= now() OR": "true OR"},
        "engine/test_sweeps::test_a_lease_that_holds_is_left_alone",
    ),
    query(
        "sweep_jobs",
        "attempts",
        {" OR s.attempt_count >= s.max_attempts": NOTHING},
        "engine/test_sweeps::test_an_expired_job_without_attempts_left_is_buried_and_not_started",
    ),
    query(
        "sweep_jobs",
        "held-back-running",
        {"WHEN stop.held_back OR": "WHEN false OR"},
        "engine/test_sweeps::test_in_a_paused_queue_an_expired_job_goes_back_to_waiting",
        "engine/test_breaker::test_neither_claims_nor_sweeps_start_what_depends_on_it",
    ),
    query(
        "sweep_jobs",
        "held-back-waiting",
        {"f.action = 'claim' AND NOT f.held_back": "f.action = 'claim'"},
        "engine/test_probes::test_a_sweep_claims_no_straggler_that_is_held_back",
    ),
    query(
        "sweep_jobs",
        "breaker",
        {"WHERE b.state <> 'closed'))": "WHERE false))"},
        "engine/test_breaker::test_neither_claims_nor_sweeps_start_what_depends_on_it",
    ),
    query(
        "sweep_jobs",
        "lease-until",
        {"AND j.lease_until IS NOT DISTINCT FROM c.lease_until": NOTHING},
        f"{SWEEP}[extended]",
    ),
    query(
        "sweep_jobs", "run-after", {"AND j.run_after = c.run_after": NOTHING}, f"{SWEEP}[put off]"
    ),
    query(
        "sweep_jobs",
        "lease",
        {"j.lease = c.lease AND ": NOTHING},
        why=(
            "no two leases of a row have the same lease_until, and whoever ends one sets it to null"
        ),
    ),
    query(
        "sweep_jobs",
        "ended",
        {" AND j.processed_at IS NULL AND j.run_after": " AND j.run_after"},
        why="whoever ends a job also changes its lease or lease_until",
    ),
    query(
        "sweep_jobs",
        "lease-and-ended",
        {
            "j.lease = c.lease AND ": NOTHING,
            " AND j.processed_at IS NULL AND j.run_after": " AND j.run_after",
        },
        f"{SWEEP}[given up]",
    ),
    query(
        "sweep_jobs",
        "lease-and-until",
        {"j.lease = c.lease AND j.lease_until IS NOT DISTINCT FROM c.lease_until": "true"},
        f"{SWEEP}[rescued]",
    ),
    query(
        "sweep_jobs",
        "skip",
        {"FOR NO KEY UPDATE OF j SKIP LOCKED": "FOR NO KEY UPDATE OF j"},
        f"{PASSES}[sweep]",
    ),
    query(
        "sweep_jobs", "lock", {"FOR NO KEY UPDATE OF j SKIP LOCKED": NOTHING}, f"{PASSES}[sweep]"
    ),
    query(
        "sweep_jobs",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "engine/test_sweeps::test_a_lease_that_ran_out_starts_again_with_a_new_lease",
    ),
    query(
        "bury_forgotten",
        "status",
        {"j.status = 'processing' AND ": NOTHING},
        "engine/test_fence::test_a_job_that_waits_is_never_forgotten",
    ),
    query(
        "bury_forgotten",
        "live",
        {"j.processed_at IS NULL AND ": NOTHING},
        f"{LIVE}[bury_forgotten]",
    ),
    query("bury_forgotten", "skip", {"SKIP LOCKED": NOTHING}, f"{PASSES}[bury]"),
    query(
        "bury_forgotten", "lock", {"FOR NO KEY UPDATE OF j SKIP LOCKED": NOTHING}, f"{PASSES}[bury]"
    ),
    query(
        "bury_forgotten",
        "attempts-left",
        {"j.lease_until <= now() AND j.attempt_count < j.max_attempts": "false"},
        f"{DAY_OFF}_retention_gives_up_no_job_that_has_attempts_left",
    ),
    query(
        "bury_forgotten",
        "alive",
        {"AND w.seen_at > now() - interval '1 min')": "AND false)"},
        f"{DAY_OFF}_retention_gives_up_no_job_that_has_attempts_left",
    ),
    query(
        "bury_forgotten",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "operate/test_retention::test_a_job_that_nobody_sweeps_is_buried_after_24_hours",
    ),
    # The database's clock is set
    query(
        "sweep_jobs",
        "day-off",
        {"WHEN NOT over.lapsed OR": "WHEN s.started_at <= now() - interval '24 h' OR"},
        f"{DAY_OFF}_jobs_in_flight_are_rescued_while_attempts_are_left",
    ),
    query(
        "sweep_jobs",
        "unknown",
        {
            "f.action = 'release' AND (f.known OR f.started_at <= now() - interval '24 h')": (
                "f.action = 'release' AND f.known"
            )
        },
        f"{DAY_OFF}_jobs_in_flight_are_rescued_while_attempts_are_left",
    ),
    query(
        "sweep_jobs",
        "too-late-a-lease",
        {"s.lease_until > now() + interval '10 s'": "s.lease_until > now() + interval '10 years'"},
        (
            "engine/test_clock_leaps::test_a_lease_from_before_the_clock_was_set_back_is_over[old "
            "jobs]"
        ),
    ),
    query(
        "sweep_jobs",
        "its-own-lease",
        {"w.id = s.locked_by), '1 h')": "w.id = %(worker)s), '1 h')"},
        "engine/test_clock_leaps::test_a_long_lease_of_another_worker_is_not_over",
    ),
    query(
        "sweep_jobs",
        "patient",
        {"AND NOT (SELECT p.now FROM patient p)": NOTHING},
        "engine/test_clock_leaps::test_while_a_sweep_is_patient_no_lease_is_over",
    ),
    query(
        "sweep_jobs",
        "leap",
        {
            "coalesce(now() > %(expected)s::timestamptz + interval '1 min', false)": (
                "%(expected)s::timestamptz = 'infinity'"
            )
        },
        "engine/test_clock_leaps::test_while_a_sweep_is_patient_no_lease_is_over",
    ),
    query(
        "extend_leases",
        "began",
        {"l.began > j.started_at + interval '1 min'": "false"},
        "engine/test_clock_leaps::test_an_extension_corrects_when_the_attempt_began",
    ),
    # Retention and all the rest
    query(
        "prune_jobs", "skip", {"FOR UPDATE OF j SKIP LOCKED": "FOR UPDATE OF j"}, f"{PASSES}[prune]"
    ),
    query(
        "prune_jobs",
        "lock",
        {"FOR UPDATE OF j SKIP LOCKED": NOTHING},
        "engine/test_locks::test_what_retention_has_chosen_cannot_be_replayed_meanwhile",
    ),
    query(
        "prune_jobs",
        "window",
        {"AND j.created_at < now() - coalesce(pgqueue_span(t.limit_window), '0 s')": NOTHING},
        "operate/test_retention::test_nothing_inside_the_window_of_its_limit_goes",
    ),
    query(
        "prune_tombstones",
        "skip",
        {"SKIP LOCKED": NOTHING},
        "engine/test_locks::test_forgetting_ids_waits_for_nobody",
    ),
    query(
        "prune_tombstones",
        "lock",
        {"FOR UPDATE SKIP LOCKED": NOTHING},
        "engine/test_locks::test_forgetting_ids_waits_for_nobody",
    ),
    query(
        "bury_rows",
        "conflict",
        {"ON CONFLICT (id_hash) DO NOTHING": NOTHING},
        "enqueue/test_once::test_an_id_that_was_buried_can_be_buried_again",
    ),
    query(
        "check_constraints_now",
        "immediate",
        {"SET CONSTRAINTS ALL IMMEDIATE": "SET CONSTRAINTS ALL DEFERRED"},
        (
            "operate/test_retention_trouble::test_a_row_that_cannot_be_removed_stays_alone[a "
            "reference that is checked at the commit]"
        ),
    ),
    query(
        "bound_locks",
        "timeout",
        {"'100ms'": "'0'"},
        "operate/test_retention_trouble::test_a_lock_on_what_refers_to_a_row_is_not_waited_for",
        slow=True,
    ),
    query(
        "publish_types",
        "conflict",
        {
            "ON CONFLICT (job_type) DO UPDATE": "/* ON CONFLICT (job_type)",
            "    RETURNING t.*": "*/ RETURNING t.*",
        },
        "enqueue/test_once::test_a_type_that_is_published_again_is_as_it_was_said_last",
    ),
    query(
        "register_worker",
        "conflict",
        {"ON CONFLICT (id) DO UPDATE SET seen_at = now(), types = excluded.types": NOTHING},
        "enqueue/test_once::test_a_worker_that_registers_again_is_alive",
    ),
    query(
        "try_lock",
        "lock",
        {"pg_try_advisory_xact_lock(%(lock)s)": "%(lock)s > 0"},
        "engine/test_locks::test_one_process_at_a_time_keeps_house",
    ),
    query(
        "advance_job",
        "status",
        {"AND j.status IN ('enqueued', 'failed')": NOTHING},
        "engine/test_fence::test_time_is_moved_only_for_a_job_that_waits[completed]",
    ),
    query(
        "find_waiting",
        "status",
        {"AND j.status IN ('enqueued', 'failed')": NOTHING},
        "engine/test_fence::test_jobs_that_wait_are_found_and_no_others",
    ),
    query(
        "find_waiting",
        "live",
        {"j.processed_at IS NULL AND ": NOTHING},
        why="it is there for the index; the status says the same",
    ),
    query(
        "count_due",
        "live",
        {"j.processed_at IS NULL AND ": NOTHING},
        "engine/test_fence::test_what_has_ended_is_no_work_any_more",
    ),
    query(
        "count_due",
        "status",
        {"j.status = 'processing' OR ": NOTHING},
        why="whatever runs was due when it was claimed",
    ),
]
