-- Waiting jobs of one type, oldest first, for the tests of an application.
SELECT j.id, j.job_id, j.job_type, j.user_id, j.status, j.queue, j.priority,
       j.attempt_count, j.max_attempts, j.payload, j.error, j.stack_trace, j.created_at,
       j.run_after, j.started_at, j.processed_at, j.dead_at, j.locked_by, j.progress,
       j.progress_note, j.receipt, j.history
  FROM job_logs j
 WHERE j.processed_at IS NULL AND j.status IN ('enqueued', 'failed') AND j.job_type = %(job_type)s
   AND coalesce(j.job_id = %(job_id)s::text, true) AND coalesce(j.user_id = %(user_id)s::text, true)
   AND coalesce(j.queue = %(queue)s::text, true)
 ORDER BY j.created_at, j.id
 LIMIT 1000
