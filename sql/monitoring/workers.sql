-- The processes that said within the last day that they are alive, workers and API: the live ones
-- first.
--
-- seen_s   seconds since the last word. alive: not more than 30
-- asleep   waits for the doorbell; it has nothing to do
-- detail   its counters since it started
--
-- alive false: the process was killed, or lost the database. Its jobs start again on others when
-- their leases run out; the row goes by itself after a day. Two releases side by side for long:
-- finish the rollout.
SELECT w.id, w.kind, w.host, w.pid, w.release, w.queues, w.started_at,
       round(extract(epoch FROM now() - w.seen_at), 1)::float8 AS seen_s,
       w.seen_at > now() - interval '30 s' AS alive,
       w.asleep, w.detail
  FROM job_workers w
 WHERE w.seen_at > now() - interval '1 day'
 ORDER BY alive DESC, w.kind, w.host, w.id
 LIMIT 1000;
