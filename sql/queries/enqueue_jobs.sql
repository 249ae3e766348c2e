-- Up to 10,000 jobs in one commit; an answer per job, in order. An array may be null when it would hold nothing but nulls.
SELECT o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue
  FROM offer_jobs(%(job_types)s::text[], %(payloads)s::jsonb[], %(job_ids)s::text[], %(user_ids)s::text[], %(queues)s::text[],
                  %(priorities)s::integer[],
                  ARRAY(SELECT coalesce(t.run_after, clock_timestamp() + t.delay)
                          FROM unnest(%(run_afters)s::timestamptz[], %(delays)s::interval[])
                               WITH ORDINALITY AS t(run_after, delay, ord) ORDER BY t.ord),
                  %(max_attempts)s::integer[], %(filled)s::jsonb[]) AS o
