-- Why jobs died: the newest 100,000 dead ones, grouped by their error with what varies taken out:
-- quoted texts, and words that hold a digit or an @ (numbers, ids, hosts, addresses). The biggest
-- groups first, 100 of them.
--
-- One group that is big and recent is an outage or a bug: remove the cause, then replay the group.
-- By HTTP that is POST /api/admin/dlq/retry-batch with a part of the error. Many small groups are
-- bad input: look at the samples, fix the callers, replay with a corrected payload or delete.
WITH newest AS (
    SELECT j.job_id, j.job_type, j.dead_at, left(coalesce(j.error, ''), 300) AS error
      FROM job_logs j WHERE j.dead_at IS NOT NULL ORDER BY j.dead_at DESC, j.id DESC LIMIT 100000
), grouped AS (
    -- By the text itself first: the expression below is dear, and outages repeat themselves.
    SELECT n.error, n.job_type, count(*) AS count, min(n.dead_at) AS first, max(n.dead_at) AS last,
           (array_agg(n.job_id ORDER BY n.dead_at DESC))[1] AS sample
      FROM newest n GROUP BY n.error, n.job_type
), printed AS (
    SELECT regexp_replace(g.error, '"[^"]*"|''[^'']*''|\S*[0-9@]\S*', '?', 'g') AS fingerprint,
           g.*
      FROM grouped g
)
SELECT p.fingerprint, sum(p.count)::bigint AS count, min(p.first) AS first, max(p.last) AS last,
       (array_agg(p.sample ORDER BY p.last DESC))[1] AS sample_job_id,
       array_agg(DISTINCT p.job_type) AS job_types
  FROM printed p GROUP BY p.fingerprint ORDER BY count DESC, last DESC LIMIT 100;
