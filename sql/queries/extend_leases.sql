-- Makes all of a worker's long leases longer, in one statement; also its heartbeat (worker null: none), for the event
-- loop may be blocked for a while. A row that
-- somebody else has locked is skipped: it is in neither list, and asked about again. 'lost' is proof: the lease is not ours.
WITH held AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[]) AS h(id, lease)
), locked AS MATERIALIZED (
    SELECT j.id FROM held h JOIN job_logs j ON j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s
                                   AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), extended AS (
    UPDATE job_logs j SET lease_until = now() + %(lease)s::interval FROM locked l WHERE j.id = l.id RETURNING j.id, j.lease
), beat AS (
    UPDATE job_workers w SET seen_at = now() WHERE w.id = %(worker)s::text
)
SELECT e.id, e.lease, 'extended' AS what FROM extended e
UNION ALL
SELECT h.id, h.lease, 'lost' FROM held h
 WHERE NOT EXISTS (SELECT FROM job_logs j
                    WHERE j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s AND j.status = 'processing')
