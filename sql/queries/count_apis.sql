-- How many API processes are alive: each lets through its share of what one network address may
-- post.
SELECT count(*) AS apis FROM job_workers w
 WHERE w.kind = 'api' AND w.seen_at > now() - interval '30 s'
