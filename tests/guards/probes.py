"""The guards of the circuit breaker's table and functions."""

from tests.guards import function, table

ROW = "enqueue/test_once::test_a_thing_is_one_row"
NOTHING = ""

PROBES = [
    # The circuit breaker
    table("dependency", {"dependency text PRIMARY KEY": "dependency text"}, f"{ROW}[dependency]"),
    function(
        "pgqueue_dependency_failed",
        "conflict",
        {
            "(pgqueue_dependency_failed.dependency) ON CONFLICT DO NOTHING": (
                "(pgqueue_dependency_failed.dependency)"
            )
        },
        "engine/test_probes::test_a_dependency_is_one_row_however_often_it_fails",
    ),
    function(
        "pgqueue_dependency_failed",
        "lock",
        {
            "d.dependency = pgqueue_dependency_failed.dependency FOR UPDATE": (
                "d.dependency = pgqueue_dependency_failed.dependency"
            )
        },
        "engine/test_probes::test_failures_that_are_told_at_once_add_up",
    ),
    function(
        "pgqueue_dependency_failed",
        "old",
        {"AND j.started_at < was.closed_at AND": "AND false AND"},
        "engine/test_refused_jobs::test_failures_that_began_before_it_closed_do_not_count",
    ),
    function(
        "pgqueue_dependency_probed",
        "fence",
        {"AND d.probe_id = probe AND d.probe_lease = pgqueue_dependency_probed.lease": NOTHING},
        "engine/test_breaker::test_a_probe_whose_worker_died_is_replaced_and_decides_nothing",
    ),
    function(
        "pgqueue_dependency_probed",
        "worker",
        {"AND d.probe_worker = worker": NOTHING},
        "engine/test_breaker::test_a_probe_that_a_failover_has_undone_decides_nothing",
    ),
    function(
        "pgqueue_claim_probe",
        "skip",
        {"ORDER BY d.probe_at FOR UPDATE SKIP LOCKED": "ORDER BY d.probe_at FOR UPDATE"},
        "engine/test_probes::test_a_probe_that_somebody_else_is_starting_is_not_waited_for",
    ),
    function(
        "pgqueue_claim_probe",
        "lock",
        {"ORDER BY d.probe_at FOR UPDATE SKIP LOCKED": "ORDER BY d.probe_at"},
        "engine/test_probes::test_a_dependency_that_was_tried_while_it_was_chosen_is_not_tried_again",
    ),
    function(
        "pgqueue_claim_probe",
        "fresh",
        {"ORDER BY head.attempt_count > 0, head.run_after": "ORDER BY head.run_after"},
        "engine/test_refused_jobs::test_a_probe_is_a_job_that_has_not_failed[in its lane]",
    ),
    function(
        "pgqueue_claim_probe",
        "fresh-lane",
        {"ORDER BY lane.failed, p.priority": "ORDER BY p.priority"},
        "engine/test_refused_jobs::test_a_probe_is_a_job_that_has_not_failed[in a later lane]",
    ),
    function(
        "pgqueue_claim_probe",
        "lease",
        {"AND j.lease = open.probe_lease": NOTHING},
        "engine/test_probes::test_a_probe_holds_as_long_as_its_lease[another has its job]",
    ),
    function(
        "pgqueue_claim_probe",
        "expired",
        {"AND j.lease_until > now()": NOTHING},
        "engine/test_probes::test_a_probe_holds_as_long_as_its_lease[its lease ran out]",
    ),
    function(
        "pgqueue_claim_probe",
        "running",
        {"open.probe_lease AND j.status = 'processing'": "open.probe_lease"},
        why="lease_until is null in every other state",
    ),
    function(
        "pgqueue_claim_probe",
        "live",
        {"j.priority = p.priority AND j.processed_at IS NULL": "j.priority = p.priority"},
        why="it is there for the index; the status says the same",
    ),
    function(
        "pgqueue_claim_probe",
        "status",
        {
            "AND j.status IN ('enqueued', 'failed') AND j.run_after <= now()": (
                "AND j.run_after <= now()"
            )
        },
        "engine/test_probes::test_a_job_that_runs_is_no_probe",
    ),
    function(
        "pgqueue_claim_probe",
        "status-again",
        {"j.id = taken AND j.status IN ('enqueued', 'failed')": "j.id = taken"},
        "engine/test_probes::test_a_job_that_was_claimed_while_it_was_chosen_is_no_probe",
    ),
    function(
        "pgqueue_claim_probe",
        "job-skip",
        {"FOR NO KEY UPDATE SKIP LOCKED": "FOR NO KEY UPDATE"},
        "engine/test_probes::test_a_job_that_somebody_has_locked_is_no_probe",
    ),
    function(
        "pgqueue_claim_probe",
        "job-lock",
        {"FOR NO KEY UPDATE SKIP LOCKED": NOTHING},
        "engine/test_probes::test_a_job_that_somebody_has_locked_is_no_probe",
    ),
    function(
        "pgqueue_claim_probe",
        "mark",
        {"SET status = 'processing', attempt_count": "SET status = j.status, attempt_count"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
    function(
        "pgqueue_claim_probe",
        "attempt",
        {"attempt_count = j.attempt_count + 1": "attempt_count = j.attempt_count"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
    function(
        "pgqueue_claim_probe",
        "fence",
        {"lease = j.lease + 1": "lease = j.lease"},
        "engine/test_probes::test_a_probe_is_an_attempt_like_any_other",
    ),
]
