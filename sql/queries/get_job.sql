-- One job, whole; where it is damaged, as far as it can be read.
SELECT j.id, j.job_id, j.job_type, j.user_id, j.status, j.queue, j.priority,
       j.attempt_count, j.max_attempts, j.payload, j.error, j.stack_trace, j.created_at,
       j.run_after, j.started_at, j.processed_at, j.dead_at, j.locked_by, j.progress,
       j.progress_note, j.receipt, j.history
  FROM job_logs k CROSS JOIN LATERAL (
       SELECT k.* WHERE NOT %(damaged)s
       UNION ALL
       SELECT r.* FROM pgqueue_readable_job(k.id) AS r WHERE %(damaged)s) AS j
 WHERE k.job_id = %(job_id)s
