-- One job. A delay counts from the database's now.
SELECT o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue
  FROM pgqueue_try_enqueue(
           %(job_type)s::text, %(payload)s::jsonb, %(job_id)s::text, %(user_id)s::text,
           %(queue)s::text, %(priority)s::integer,
           coalesce(%(run_after)s::timestamptz, clock_timestamp() + %(delay)s::interval),
           %(max_attempts)s::integer, %(filled)s::jsonb) AS o
