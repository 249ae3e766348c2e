-- Jobs that are `processing` although something is wrong with that, longest first. Empty is good.
--
-- why = 'lease ran out': its worker died or lost the database. Workers of that queue pick it up
-- within seconds; if it stays here, no worker serves the queue: start one.
-- why = 'worker is silent': no heartbeat for 30 seconds. Wait for the lease to run out; then as
-- above.
-- why = 'beyond its timeout': the handler should have stopped and did not (a plain def in a thread
-- cannot be interrupted). It holds a slot until it returns. Look at the worker's log;
-- SELECT * FROM cancel_job('ID') ends the job.
-- A job that was claimed 24 hours ago goes to the dead-letter queue by itself.
SELECT j.job_id, j.job_type, j.queue, j.attempt_count, j.started_at,
       now() - j.started_at AS running, j.lease_until, j.locked_by,
       CASE WHEN j.lease_until < now() THEN 'lease ran out'
            WHEN w.id IS NULL THEN 'worker is silent'
            ELSE 'beyond its timeout' END AS why
  FROM job_logs j
  LEFT JOIN job_workers w ON w.id = j.locked_by AND w.seen_at > now() - interval '30 s'
  LEFT JOIN job_types t ON t.job_type = j.job_type
 WHERE j.processed_at IS NULL AND j.status = 'processing'
   AND (j.lease_until < now() OR w.id IS NULL
        OR j.started_at + coalesce(t.timeout, '60 s') + interval '10 s' < now())
 ORDER BY j.started_at LIMIT 1000;
