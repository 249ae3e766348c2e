-- The first row of a lane behind a place, without what may be damaged in it: the row that a
-- statement cannot get past.
SELECT j.id, j.run_after, j.job_id, j.lease
  FROM job_logs j
 WHERE j.queue = %(queue)s AND j.priority = %(priority)s AND j.processed_at IS NULL
   AND (j.run_after, j.id) > (%(run_after)s::timestamptz, %(id)s::uuid) AND j.run_after <= now()
   AND j.id <> ALL (%(aside)s::uuid[])
 ORDER BY j.run_after, j.id LIMIT 1
