-- Ends attempts that did not complete, those whose lease still holds. outcome is one of
--   failed    the attempt is burned; again after delay
--   dlq       to the dead-letter queue
--   enqueued  the attempt is not burned: snoozed (again after delay) or released (delay null: keeps
--             its place)
-- certain: the side effect that the attempt declared is known not to have happened; else the next
-- attempt learns that it may have.
WITH outcome AS MATERIALIZED (
    SELECT j.id, o.status, o.delay, o.error, o.stack_trace, o.certain
      FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(statuses)s::text[],
                  %(delays)s::interval[], %(errors)s::text[],
                  %(stack_traces)s::text[], %(certain)s::boolean[])
             AS o(id, lease, status, delay, error, stack_trace, certain)
      JOIN job_logs j ON j.id = o.id AND j.lease = o.lease AND j.locked_by = %(worker)s
           AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j
)
UPDATE job_logs j
   SET status = CASE WHEN o.status = 'enqueued' AND j.attempt_count > 1 THEN 'failed'
                     ELSE o.status END,
       attempt_count = j.attempt_count - (o.status = 'enqueued')::integer,
       run_after = CASE WHEN o.delay IS NULL THEN j.run_after ELSE now() + o.delay END,
       lease_until = NULL,
       intent_at = CASE WHEN o.certain THEN NULL ELSE j.intent_at END,
       processed_at = CASE WHEN o.status = 'dlq' THEN now() END,
       dead_at = CASE WHEN o.status = 'dlq' THEN now() END,
       error = coalesce(o.error, j.error),
       stack_trace = CASE WHEN o.error IS NULL THEN j.stack_trace ELSE o.stack_trace END,
       history = CASE WHEN o.error IS NULL OR o.status = 'enqueued' THEN j.history ELSE
           pgqueue_history(j.history, jsonb_build_object(
               'attempt', j.attempt_count, 'at', pgqueue_time(now()), 'worker', j.locked_by,
               'error', o.error, 'stack', o.stack_trace)) END
  FROM outcome o WHERE j.id = o.id
RETURNING j.id, j.lease
