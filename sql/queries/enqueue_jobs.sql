-- Up to 10,000 jobs in one commit; an answer per job, in order.
SELECT o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue FROM offer_jobs(%(jobs)s::jsonb) AS o
