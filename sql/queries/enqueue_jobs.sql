-- Up to 10,000 jobs in one commit. Answers a row for each job that was not created, and a row for
-- each job type among them with its queue.
SELECT o.ord, o.job_id, o.status, o.created, o.retry_after, o.refusal, o.job_type, o.queue
  FROM pgqueue_enqueue_many(%(jobs)s::jsonb) AS o
