-- Moves time for one waiting job, by moving the row: it is due now. For tests.
UPDATE job_logs j SET run_after = clock_timestamp()
 WHERE j.job_id = %(job_id)s AND j.status IN ('enqueued', 'failed') RETURNING j.job_id
