-- One job as by enqueue_job.sql, and a ring in the same commit, for times in which workers sleep:
-- it saves the way back to the caller and out again. rung is how many were woken. Where that is
-- none, the ring after the commit is still due: one may have fallen asleep after this statement
-- began.
SELECT o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue,
       CASE WHEN o.created THEN ring_doorbell(ARRAY[o.queue], 1) END AS rung
  FROM pgqueue_try_enqueue(
           %(job_type)s::text, %(payload)s::jsonb, %(job_id)s::text, %(user_id)s::text,
           %(queue)s::text, %(priority)s::integer,
           coalesce(%(run_after)s::timestamptz, clock_timestamp() + %(delay)s::interval),
           %(max_attempts)s::integer, %(filled)s::jsonb) AS o
