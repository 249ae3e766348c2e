-- The same for the jobs of callers who know nothing of each other: none of them waits long for
-- another one's lock.
SELECT o.ord, o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue FROM offer_group(%(jobs)s::jsonb, %(types)s::text[]) AS o
