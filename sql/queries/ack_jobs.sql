-- Completes attempts, those whose lease still holds; the rest has been taken away and is not in the answer.
WITH done AS MATERIALIZED (
    SELECT j.id, a.receipt
      FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(receipts)s::text[]) AS a(id, lease, receipt)
      JOIN job_logs j ON j.id = a.id AND j.lease = a.lease AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j
)
UPDATE job_logs j
   SET status = 'completed', processed_at = now(), lease_until = NULL, error = NULL, stack_trace = NULL, intent_at = NULL,
       receipt = done.receipt
  FROM done WHERE j.id = done.id
RETURNING j.id
