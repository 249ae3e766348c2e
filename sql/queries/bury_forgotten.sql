-- The 24-hour rule for queues that no living worker serves, whose sweeps would see to it: an
-- attempt that has run for so long, or was the last, goes to the dead-letter queue; one whose
-- worker is gone goes back to its queue while there are attempts left.
WITH forgotten AS MATERIALIZED (
    SELECT j.id, j.lease_until <= now() AND j.attempt_count < j.max_attempts AS waits,
           CASE WHEN j.lease_until > now() THEN 'In processing for 24 hours: no more attempts'
                ELSE format('The lease of attempt %%s ran out: '
                            'its worker %%s died or lost the database',
                            j.attempt_count, j.locked_by) END
           || CASE WHEN j.intent_at IS NULL THEN ''
                   ELSE ', and what it had announced may have been done' END AS reason
      FROM job_logs j
     WHERE j.processed_at IS NULL AND j.status = 'processing'
       AND j.started_at <= now() - interval '24 h'
       AND (j.lease_until > now()
            OR NOT EXISTS (SELECT FROM job_workers w
                            WHERE w.id = j.locked_by AND w.seen_at > now() - interval '1 min'))
     ORDER BY j.id LIMIT %(batch)s FOR NO KEY UPDATE OF j SKIP LOCKED
)
UPDATE job_logs j
   SET status = CASE WHEN f.waits THEN 'failed' ELSE 'dlq' END, lease = j.lease + 1,
       lease_until = NULL,
       processed_at = CASE WHEN NOT f.waits THEN now() END,
       dead_at = CASE WHEN NOT f.waits THEN now() END,
       error = f.reason,
       history = pgqueue_history(j.history, jsonb_build_object(
           'attempt', j.attempt_count, 'at', pgqueue_time(now()), 'worker', j.locked_by,
           'error', f.reason))
  FROM forgotten f WHERE j.id = f.id
RETURNING j.job_id
