-- After a lost connection: the rows that this worker claimed without ever hearing of it go back,
-- with their attempt.
WITH orphan AS MATERIALIZED (
    SELECT j.id FROM job_logs j
     WHERE j.queue = ANY (%(queues)s::text[]) AND j.processed_at IS NULL AND j.status = 'processing'
       AND j.locked_by = %(worker)s AND j.run_after <= now()
       AND NOT EXISTS (SELECT FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[]) AS h(id, lease)
                        WHERE h.id = j.id AND h.lease = j.lease)
     ORDER BY j.id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE job_logs j
   SET status = CASE WHEN j.attempt_count > 1 THEN 'failed' ELSE 'enqueued' END,
       attempt_count = j.attempt_count - 1,
       lease_until = NULL
  FROM orphan o WHERE j.id = o.id
RETURNING j.job_id
