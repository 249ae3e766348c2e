-- Attempts that are about to have an irreversible side effect declare it first; an attempt that is
-- not in the answer has lost its lease, and must not go on.
WITH holder AS MATERIALIZED (
    SELECT j.id FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[]) AS h(id, lease)
      JOIN job_logs j ON j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s
           AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j
)
UPDATE job_logs j SET intent_at = now() FROM holder h WHERE j.id = h.id RETURNING j.id, j.lease
