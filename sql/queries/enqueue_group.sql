-- As enqueue_jobs.sql, for the jobs of callers who know nothing of each other: none of them waits
-- long for the lock of another.
SELECT o.ord, o.job_id, o.status, o.created, o.retry_after, o.refusal, o.job_type, o.queue
  FROM pgqueue_enqueue_group(%(jobs)s::jsonb) AS o
