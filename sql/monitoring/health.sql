-- The numbers behind `pgqueue check`, one row. What is too much is for the caller to say; the
-- contract's alerts are in brackets.
--
-- dead           jobs in the dead-letter queue (> 10): pgqueue dlq errors says why; remove the
--                cause, then pgqueue dlq retry
-- failed_share   of the jobs that ended or failed in the last 15 minutes, the part that failed or
--                died (> 0.05): see retrying_jobs.sql; null when there was nothing
-- p99_s          99 % of the jobs that completed in the last 15 minutes took at most this long,
--                from due to done (> 10): see slow_jobs.sql; null when there was nothing
-- depth          jobs that are due and wait (> 1000): more workers, or more slots
-- unserved       those of them whose queue no living worker serves, paused queues aside (> 0):
--                start one
-- disagreements  job types that living processes declare differently (> 0): a rollout that is not
-- finished
--
-- Counts stop at 100,000, and where more than 20,000 jobs were enqueued in the last 15 minutes,
-- only the time of the last 20,000 is judged: it answers in an incident too. A process lives that
-- was heard of in the last 30 seconds.
WITH live AS (
    SELECT w.kind, w.queues, w.types FROM job_workers w WHERE w.seen_at > now() - interval '30 s'
), dead AS (
    SELECT j.dead_at FROM job_logs j WHERE j.dead_at IS NOT NULL
     ORDER BY j.dead_at DESC LIMIT 100000
), waiting AS MATERIALIZED (
    SELECT j.queue, j.status, j.run_after, j.started_at FROM job_logs j
     WHERE j.processed_at IS NULL AND j.status IN ('enqueued', 'failed') LIMIT 100000
), due AS (
    SELECT w.queue, count(*) AS jobs FROM waiting w WHERE w.run_after <= now() GROUP BY w.queue
), latest AS (
    SELECT j.status, j.created_at, j.run_after, j.processed_at FROM job_logs j
     WHERE j.id < job_uuid_at(now() + interval '1 day') ORDER BY j.id DESC LIMIT 20000
), judged AS (
    SELECT CASE WHEN count(*) < 20000 THEN now() - interval '15 min'
                ELSE greatest(min(l.created_at), now() - interval '15 min') END AS since
      FROM latest l
), completed AS (
    SELECT extract(epoch FROM l.processed_at - l.run_after) AS seconds FROM latest l, judged u
     WHERE l.status = 'completed' AND l.processed_at > u.since
), failures AS (
    SELECT (SELECT count(*) FROM dead d WHERE d.dead_at > u.since)
         + (SELECT count(*) FROM waiting w
             WHERE w.status = 'failed' AND w.started_at > u.since) AS jobs
      FROM judged u
), declared AS (
    SELECT t.job_type FROM live l CROSS JOIN LATERAL jsonb_each_text(l.types) AS t(job_type, hash)
     GROUP BY t.job_type HAVING count(DISTINCT t.hash) > 1
)
SELECT (SELECT count(*) FROM dead) AS dead,
       round(f.jobs / nullif(f.jobs + c.jobs, 0)::numeric, 4) AS failed_share,
       round(c.p99::numeric, 3) AS p99_s,
       (SELECT coalesce(sum(d.jobs), 0)::bigint FROM due d) AS depth,
       (SELECT coalesce(sum(d.jobs), 0)::bigint FROM due d
         WHERE NOT EXISTS (SELECT FROM live l WHERE l.kind = 'worker' AND l.queues ? d.queue)
           AND NOT EXISTS (SELECT FROM job_queues q
                            WHERE q.queue = d.queue AND q.paused)) AS unserved,
       (SELECT count(*) FROM declared) AS disagreements
  FROM failures f,
       (SELECT count(*) AS jobs, percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99
          FROM completed) AS c;
