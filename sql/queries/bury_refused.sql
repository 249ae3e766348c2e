-- Moves a row that cannot be worked on to the dead-letter queue, unless it was claimed or ended
-- since it was read. Touches neither payload nor history: they may be what is damaged.
UPDATE job_logs j
   SET status = 'dlq', lease = j.lease + 1, lease_until = NULL, processed_at = now(),
       dead_at = now(), error = %(reason)s,
       stack_trace = NULL
 WHERE j.id = %(id)s AND j.lease = %(lease)s AND j.processed_at IS NULL
RETURNING j.id
