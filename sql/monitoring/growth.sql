-- How many rows each of the last 30 days added, those of them that are still here, and about how
-- many bytes they are. Days are UTC.
--
-- Estimated: ids are in the order of time, so the statistics about ids (as of the last ANALYZE) say
-- how they spread over days; no row is read. Days before the retention (PGQUEUE_KEEP_COMPLETED)
-- hold what is dead, or what pruning has not reached: if they hold much, does a worker run with
-- PGQUEUE_AUTO_PRUNE, or `pgqueue prune`? Plan the disk for a day's bytes times the days kept.
-- Empty: the table has no statistics yet. ANALYZE job_logs makes them.
WITH bounds AS (
    SELECT b.bound, b.ord, count(*) OVER () AS bounds
      FROM pg_stats s
     CROSS JOIN LATERAL unnest(s.histogram_bounds::text::uuid[]) WITH ORDINALITY AS b(bound, ord)
     WHERE s.schemaname = (SELECT c.relnamespace::regnamespace::text FROM pg_class c
                            WHERE c.oid = to_regclass('job_logs'))
       AND s.tablename = 'job_logs' AND s.attname = 'id'
), size AS (
    SELECT greatest(c.reltuples, 0) AS rows, pg_total_relation_size(c.oid) AS bytes FROM pg_class c
     WHERE c.oid = to_regclass('job_logs')
), days AS (
    SELECT d.day, job_uuid_at(d.day AT TIME ZONE 'UTC') AS low,
           job_uuid_at((d.day + interval '1 day') AT TIME ZONE 'UTC') AS high
      FROM generate_series(date_trunc('day', now() AT TIME ZONE 'UTC') - interval '29 days',
                           date_trunc('day', now() AT TIME ZONE 'UTC'), interval '1 day') AS d(day)
)
SELECT d.day::date AS day, round(size.rows * count(b.bound) / max(b.bounds))::bigint AS rows_about,
       pg_size_pretty(round(size.bytes * count(b.bound)::numeric / max(b.bounds))) AS bytes_about
  FROM days d JOIN bounds b ON b.bound >= d.low AND b.bound < d.high CROSS JOIN size
 GROUP BY d.day, size.rows, size.bytes ORDER BY d.day DESC;
