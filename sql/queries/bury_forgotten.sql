-- The 24-hour rule for queues that no living worker serves: their sweeps bury nothing.
WITH forgotten AS MATERIALIZED (
    SELECT j.id FROM job_logs j
     WHERE j.processed_at IS NULL AND j.status = 'processing' AND j.started_at <= now() - interval '24 h'
     ORDER BY j.id LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE job_logs j
   SET status = 'dlq', lease = j.lease + 1, lease_until = NULL, processed_at = now(), dead_at = now(),
       error = 'In processing for 24 hours: given up',
       history = job_history(j.history, jsonb_build_object('attempt', j.attempt_count, 'at', job_time(now()), 'worker', j.locked_by,
                                                           'error', 'In processing for 24 hours: given up'))
  FROM forgotten f WHERE j.id = f.id
RETURNING j.job_id
