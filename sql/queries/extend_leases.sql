-- Makes all of a worker's long leases longer, in one statement. It is also the worker's heartbeat
-- while `alive`, for a handler may block the event loop for a while. A row that another statement
-- has locked is skipped: it is in neither list, and asked about again. 'lost' is proof: the lease
-- is not ours.
WITH held AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(ages)s::float8[])
             AS h(id, lease, age)
), locked AS MATERIALIZED (
    SELECT j.id, now() - make_interval(secs => h.age) AS began
      FROM held h
      JOIN job_logs j ON j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s
           AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), extended AS (
    -- By the worker's monotonic clock: where the database's has leapt since, the attempt has
    -- not run for so long.
    UPDATE job_logs j
       SET lease_until = now() + %(lease)s::interval,
           started_at = CASE WHEN l.began > j.started_at + interval '1 min' THEN l.began
                             ELSE j.started_at END
      FROM locked l WHERE j.id = l.id RETURNING j.id, j.lease
), beat AS (
    UPDATE job_workers w SET seen_at = now() WHERE w.id = %(worker)s AND %(alive)s
)
SELECT e.id, e.lease, 'extended' AS what FROM extended e
UNION ALL
SELECT h.id, h.lease, 'lost' FROM held h
 WHERE NOT EXISTS (SELECT FROM job_logs j
                    WHERE j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s
                      AND j.status = 'processing')
