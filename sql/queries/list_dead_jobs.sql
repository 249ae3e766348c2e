-- A page of the dead-letter queue, newest first. A null filter lets everything pass; the cursor is
-- the last row of the page before. damaged: one of them cannot be read whole.
SELECT d.id, d.job_id, d.job_type, d.user_id, d.status, d.queue, d.priority,
       d.attempt_count, d.max_attempts, d.payload, d.error, d.stack_trace, d.created_at,
       d.run_after, d.started_at, d.processed_at, d.dead_at, d.locked_by, d.progress,
       d.progress_note, d.receipt, d.history
  FROM dead_jobs(%(job_type)s::text, %(user_id)s::text, %(error)s::text, %(since)s::timestamptz,
                 %(until)s::timestamptz,
                 %(job_ids)s::text[]) AS k CROSS JOIN LATERAL (
       SELECT k.* WHERE NOT %(damaged)s
       UNION ALL
       SELECT r.* FROM pgqueue_readable_job(k.id) AS r WHERE %(damaged)s) AS d
 WHERE %(cursor_dead_at)s::timestamptz IS NULL
    OR (k.dead_at, k.id) < (%(cursor_dead_at)s::timestamptz, %(cursor_id)s::uuid)
 ORDER BY k.dead_at DESC, k.id DESC LIMIT %(limit)s
