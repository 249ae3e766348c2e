-- At most one job, as the probe of a dependency whose breaker is open and whose time has come.
SELECT j.id, j.lease, NULL, j.job_id, j.job_type, j.user_id, j.attempt_count, j.max_attempts,
       j.payload, j.created_at, j.run_after,
       j.queue, j.intent_at IS NOT NULL, t.depends_on
  FROM pgqueue_claim_probe(%(worker)s::text, %(lease)s::interval, %(queues)s::text[],
                           %(dependencies)s::text[]) AS j
  JOIN job_types t ON t.job_type = j.job_type
