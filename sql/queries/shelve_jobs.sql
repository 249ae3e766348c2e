-- Puts back jobs for whose type this worker has no handler, without burning an attempt: for 1 s,
-- then 2, 4, ... up to 5 minutes; 24 hours after the first time the job goes to the dead-letter
-- queue.
WITH held AS MATERIALIZED (
    SELECT j.id,
           CASE WHEN j.history -> -1 ->> 'event' = 'no handler'
                THEN pgqueue_moment(j.history -> -1 ->> 'at') END AS since,
           CASE WHEN j.history -> -1 ->> 'event' = 'no handler'
                AND jsonb_typeof(j.history -> -1 -> 'times') = 'number'
                THEN greatest(0, least((j.history -> -1 ->> 'times')::numeric, 1000000))::integer
                ELSE 0 END AS times
      FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[]) AS h(id, lease)
      JOIN job_logs j ON j.id = h.id AND j.lease = h.lease AND j.locked_by = %(worker)s
           AND j.status = 'processing'
     ORDER BY j.id FOR NO KEY UPDATE OF j
), shelf AS (
    SELECT h.*, coalesce(h.since <= now() - interval '24 h', false) AS over FROM held h
)
UPDATE job_logs j
   SET status = CASE WHEN s.over THEN 'dlq' WHEN j.attempt_count > 1 THEN 'failed'
                     ELSE 'enqueued' END,
       attempt_count = j.attempt_count - 1,
       run_after = now() + least(interval '1 s' * power(2, least(s.times, 10)), interval '5 min'),
       lease_until = NULL,
       processed_at = CASE WHEN s.over THEN now() END,
       dead_at = CASE WHEN s.over THEN now() END,
       error = 'no handler for ' || j.job_type,
       history = pgqueue_history(CASE WHEN s.since IS NULL THEN j.history ELSE j.history - -1 END,
           jsonb_build_object('event', 'no handler', 'at', pgqueue_time(coalesce(s.since, now())),
                              'times', s.times + 1,
                              'worker', j.locked_by))
  FROM shelf s WHERE j.id = s.id
RETURNING j.id, j.lease, j.status, j.run_after - now() AS delay
