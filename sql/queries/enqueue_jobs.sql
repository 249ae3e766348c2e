-- Up to 10,000 jobs in one commit; answers only about those that were not created, and about the
-- queues of their types.
SELECT o.ord, o.job_id, o.status, o.created, o.retry_after, o.refusal, o.queue FROM offer_many(%(jobs)s::jsonb, %(types)s::text[]) AS o
