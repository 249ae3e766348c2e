-- The whole queue in one row: how many jobs are in each state, what waits, and how the last quarter
-- of an hour went.
--
-- enqueued, processing, failed  live jobs; each lane (one queue at one priority) is counted up to
-- 100,000 due and 100,000 later dlq                           dead jobs, counted up to 100,000.
-- Above 0: look at dead_letter_errors.sql, then replay completed, cancelled          counted while
-- the table is below 64 MB, else from Postgres' statistics: then estimated is true ready, scheduled
-- waiting jobs that are due, and those that are not yet oldest_ready_s                how long the
-- first of the ready ones has been due. Growing: too few workers, or none (queues.sql)
-- recent_finished               of the newest 10,000 jobs of the last 15 minutes: how many have
-- ended recent_failed_share           of those that ended or wait for a retry: the part that
-- failed. Above 0.05: something is wrong recent_p50_s, recent_p99_s    from due to done, in
-- seconds. p99 above 10: more workers, or more slots in PGQUEUE_QUEUES
WITH RECURSIVE lanes AS (
    -- Jumps from lane to lane in the claim index.
    (SELECT j.queue, j.priority FROM job_logs j WHERE j.processed_at IS NULL
      ORDER BY j.queue, j.priority LIMIT 1)
    UNION ALL
    SELECT n.queue, n.priority
      FROM lanes l CROSS JOIN LATERAL (
           SELECT j.queue, j.priority FROM job_logs j
            WHERE j.processed_at IS NULL AND (j.queue, j.priority) > (l.queue, l.priority)
            ORDER BY j.queue, j.priority LIMIT 1) AS n
), live AS (
    SELECT p.status, p.run_after
      FROM (SELECT l.queue, l.priority FROM lanes l LIMIT 1000) AS l CROSS JOIN LATERAL (
           (SELECT j.status, j.run_after FROM job_logs j
             WHERE j.processed_at IS NULL AND j.queue = l.queue AND j.priority = l.priority
               AND j.run_after <= now()
             ORDER BY j.run_after, j.id LIMIT 100000)
           UNION ALL
           (SELECT j.status, j.run_after FROM job_logs j
             WHERE j.processed_at IS NULL AND j.queue = l.queue AND j.priority = l.priority
               AND j.run_after > now()
             ORDER BY j.run_after, j.id LIMIT 100000)) AS p
), waiting AS (
    SELECT count(*) FILTER (WHERE v.status = 'enqueued') AS enqueued,
           count(*) FILTER (WHERE v.status = 'processing') AS processing,
           count(*) FILTER (WHERE v.status = 'failed') AS failed,
           count(*) FILTER (WHERE v.status <> 'processing' AND v.run_after <= now()) AS ready,
           count(*) FILTER (WHERE v.status <> 'processing' AND v.run_after > now()) AS scheduled,
           extract(epoch FROM now() - min(v.run_after) FILTER (
               WHERE v.status <> 'processing' AND v.run_after <= now()))
               AS oldest_ready_s
      FROM live v
), dead AS (
    -- In steps of 1,000 along the index of the dead; counted in one go, Postgres would rather read
    -- the whole table.
    SELECT 0 AS count, '-infinity'::timestamptz AS dead_at,
           '00000000-0000-0000-0000-000000000000'::uuid AS id
    UNION ALL
    SELECT d.count + 1000, n.dead_at, n.id
      FROM dead d CROSS JOIN LATERAL (
           SELECT j.dead_at, j.id FROM job_logs j
            WHERE j.dead_at IS NOT NULL AND (j.dead_at, j.id) > (d.dead_at, d.id)
            ORDER BY j.dead_at, j.id OFFSET 999 LIMIT 1) AS n
     WHERE d.count < 100000
), died AS (
    SELECT least(100000, d.count + (SELECT count(*)
                        FROM (SELECT FROM job_logs j
                               WHERE j.dead_at IS NOT NULL AND (j.dead_at, j.id) > (d.dead_at, d.id)
                               ORDER BY j.dead_at, j.id LIMIT 999) AS rest)) AS dlq
      FROM dead d ORDER BY d.count DESC LIMIT 1
), size AS MATERIALIZED (
    SELECT pg_relation_size('job_logs') > 64 * 1024 * 1024 AS big
), counted AS (
    SELECT count(*) FILTER (WHERE j.status = 'completed') AS completed,
           count(*) FILTER (WHERE j.status = 'cancelled') AS cancelled
      FROM job_logs j WHERE NOT (SELECT s.big FROM size s)
), guessed AS (
    SELECT sum(f.share * c.reltuples) FILTER (WHERE f.status = 'completed') AS completed,
           sum(f.share * c.reltuples) FILTER (WHERE f.status = 'cancelled') AS cancelled
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
           AND s.attname = 'status'
     CROSS JOIN LATERAL unnest(s.most_common_vals::text::text[], s.most_common_freqs)
            AS f(status, share)
     WHERE c.oid = 'job_logs'::regclass AND c.reltuples > 0
), newest AS (
    -- By the range of the primary key that the last 15 minutes are.
    SELECT j.status, extract(epoch FROM j.processed_at - j.run_after) AS took_s
      FROM job_logs j
     WHERE j.id >= job_uuid_at(now() - interval '15 min')
       AND j.id < job_uuid_at(now() + interval '1 day')
     ORDER BY j.id DESC LIMIT 10000
), recent AS (
    SELECT count(*) FILTER (WHERE r.took_s IS NOT NULL) AS recent_finished,
           (count(*) FILTER (WHERE r.status IN ('failed', 'dlq')))::float8
               / nullif(count(*) FILTER (WHERE r.status IN ('completed', 'failed', 'dlq')), 0)
               AS recent_failed_share,
           percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY greatest(r.took_s, 0)::float8)
               FILTER (WHERE r.status IN ('completed', 'dlq')) AS took
      FROM newest r
)
SELECT w.enqueued, w.processing, w.failed, d.dlq,
       CASE WHEN s.big THEN coalesce(round(g.completed)::bigint, 0)
            ELSE c.completed END AS completed,
       CASE WHEN s.big THEN coalesce(round(g.cancelled)::bigint, 0)
            ELSE c.cancelled END AS cancelled,
       s.big AS estimated,
       w.ready, w.scheduled, round(w.oldest_ready_s, 3)::float8 AS oldest_ready_s,
       r.recent_finished, round(r.recent_failed_share::numeric, 4)::float8 AS recent_failed_share,
       round(r.took[1]::numeric, 3)::float8 AS recent_p50_s,
       round(r.took[2]::numeric, 3)::float8 AS recent_p99_s
  FROM waiting w, died d, size s, counted c, guessed g, recent r;
