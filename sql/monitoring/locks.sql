-- Who waits for a lock on the queue's tables, or under one of its advisory locks, and who is in the
-- way. Empty is good.
--
-- blocked_by is the session to look at. `idle in transaction` there: a program forgot to commit;
-- its application_name says which. An enqueue_job in a long transaction holds back the user's
-- other jobs until it commits: commit sooner. A DDL statement (ALTER, VACUUM FULL, CREATE
-- INDEX without CONCURRENTLY): wait or end it. To end a session: SELECT pg_terminate_backend(PID);
-- a worker that loses its connection gets another one and gives back what it held.
SELECT a.pid, a.application_name, now() - a.query_start AS waiting, l.locktype, l.mode,
       l.relation::regclass AS "table",
       left(a.query, 80) AS query, b.pid AS blocked_by, b.application_name AS blocker,
       b.state AS blocker_state,
       now() - b.xact_start AS blocker_in_transaction, left(b.query, 80) AS blocker_query
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS blocking(pid)
  LEFT JOIN pg_stat_activity b ON b.pid = blocking.pid
 WHERE NOT l.granted AND a.datname = current_database()
 ORDER BY waiting DESC NULLS LAST;
