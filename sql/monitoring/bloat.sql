-- Whether vacuum keeps up, for each table of the queue, and who keeps it from doing so.
--
-- dead_share: up to 0.2 is normal, job_logs lives by updates. Above that, with last_autovacuum
-- minutes ago: look at holder, a session or slot that needs rows as they were `holding` ago, so
-- that nothing younger may be removed. End it: SELECT pg_terminate_backend(PID); for a slot without
-- a reader, pg_drop_replication_slot(NAME); for a prepared transaction ROLLBACK PREPARED. Nothing
-- is lost; claims stay fast all the time (they follow a cursor), but the table grows.
-- Above that with no holder and no autovacuum: is autovacuum off? SHOW autovacuum; and VACUUM
-- job_logs helps at once. hot_share: the part of updates that touched no index; below 0.5, was an
-- index added to job_logs?
WITH holder AS (
    SELECT format('pid %s (%s, %s)', a.pid, coalesce(a.usename, '?'),
                  coalesce(nullif(a.application_name, ''), a.state, '?')) AS who,
           now() - coalesce(a.xact_start, a.backend_start) AS holding
      FROM pg_stat_activity a
     WHERE a.pid <> pg_backend_pid() AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
       AND a.datname = current_database()
    UNION ALL
    SELECT format('prepared transaction %L', p.gid), now() - p.prepared FROM pg_prepared_xacts p
     WHERE p.database = current_database()
    UNION ALL
    SELECT format('replication slot %L', s.slot_name), NULL FROM pg_replication_slots s
     WHERE s.xmin IS NOT NULL
), oldest AS (
    SELECT h.who, h.holding FROM holder h ORDER BY h.holding DESC NULLS LAST LIMIT 1
)
SELECT s.relname AS "table", pg_size_pretty(pg_table_size(s.relid)) AS table_size,
       pg_size_pretty(pg_indexes_size(s.relid)) AS index_size,
       s.n_live_tup AS live_rows, s.n_dead_tup AS dead_rows,
       round(s.n_dead_tup::numeric / nullif(s.n_live_tup + s.n_dead_tup, 0), 3) AS dead_share,
       round(s.n_tup_hot_upd::numeric / nullif(s.n_tup_upd, 0), 3) AS hot_share,
       s.last_autovacuum, s.autovacuum_count, o.who AS holder, o.holding
  FROM pg_stat_user_tables s LEFT JOIN oldest o ON true
 WHERE s.relid IN (to_regclass('job_logs'), to_regclass('job_workers'), to_regclass('job_types'),
                   to_regclass('job_queues'),
                   to_regclass('job_tombstones'))
 ORDER BY pg_total_relation_size(s.relid) DESC;
