-- Completes one attempt inside the handler's own transaction, as its last statement; no row: the
-- lease is gone.
UPDATE job_logs j
   SET status = 'completed', processed_at = clock_timestamp(), lease_until = NULL, error = NULL,
       stack_trace = NULL, intent_at = NULL,
       receipt = %(receipt)s::text
 WHERE j.id = %(id)s AND j.lease = %(lease)s AND j.locked_by = %(worker)s
   AND j.status = 'processing'
RETURNING j.id
