-- Reads one slice of each lane behind the claims' cursor and repairs what it finds there, for one
-- worker:
--   claim    due jobs that the cursor passed over (their commit was slow)
--   rescue   leases that ran out, with attempts left: starts them here, as one group that shrinks
--            with attempt_count (100, 10, 1), so that a job that kills its worker does not take its
--            neighbours with it
--   release  the same in a paused queue, or where the job's dependency is down: back to waiting
--   dlq      leases that ran out in the last attempt, and attempts that have run for 24 hours,
--            their lease extended all the time: to the dead-letter queue
-- A lease has run out, too, that ends later than its worker's leases can: it was made before the
-- clock was set back. After a leap of the clock, patient, none has run out: living workers extend
-- their leases first. ahead looks past now for leases from such a time. It is also the worker's
-- heartbeat. A lease of a type that the worker does not know is left to a worker that does, except
-- for dlq. Three kinds of rows, each with columns of its own (all but id, lane and run_after are
-- null in the rows of another kind):
--   a job      one for each that was changed: id to uncertain; action is what was done
--   a lane     where its slice ended (run_after, id), how many rows were seen, and how many were
--              left behind: due ones, and ones whose lease ran out
--   the clock  once: now; whether the worker's row is in job_workers; "name state" of each
--              dependency that is in trouble
WITH patient AS MATERIALIZED (
    SELECT %(patient)s::boolean
           OR coalesce(now() > %(expected)s::timestamptz + interval '1 min', false) AS now
), beat AS (
    UPDATE job_workers w SET seen_at = now(), detail = w.detail || %(detail)s::jsonb
     WHERE w.id = %(worker)s RETURNING w.id
), trouble AS MATERIALIZED (
    SELECT d.dependency, d.state FROM job_dependencies d
     WHERE d.state <> 'closed' OR d.failures <> '{}'
), room AS (
    SELECT r.queue, r.free, coalesce(q.paused, false) AS paused
      FROM unnest(%(queues)s::text[], %(free)s::integer[]) AS r(queue, free)
      LEFT JOIN job_queues q ON q.queue = r.queue
), lane AS (
    SELECT l.*
      FROM unnest(%(lane_queues)s::text[], %(lane_priorities)s::smallint[],
                  %(lane_run_afters)s::timestamptz[], %(lane_ids)s::uuid[],
                  %(lane_ends)s::timestamptz[], %(lane_end_ids)s::uuid[])
           WITH ORDINALITY AS l(queue, priority, run_after, id, end_run_after, end_id, ord)
), slice AS MATERIALIZED (
    SELECT lane.ord, lane.queue, seen.*
      FROM lane CROSS JOIN LATERAL (
          SELECT j.id, j.run_after, j.status, j.lease, j.lease_until, j.started_at,
                 j.attempt_count, j.max_attempts, j.job_type, j.locked_by
            FROM job_logs j
           WHERE j.queue = lane.queue AND j.priority = lane.priority AND j.processed_at IS NULL
             AND (j.run_after, j.id) > (lane.run_after, lane.id)
             AND (j.run_after, j.id)
                 <= (coalesce(lane.end_run_after, now() + %(ahead)s::interval), lane.end_id)
             AND j.run_after <= now() + %(ahead)s::interval
             AND j.id <> ALL (%(aside)s::uuid[])
           ORDER BY j.run_after, j.id LIMIT %(slice)s
      ) AS seen
), found AS (
    SELECT s.*, room.free, s.job_type = ANY (%(types)s::text[]) AS known,
           stop.held_back, over.lapsed,
           CASE WHEN s.status <> 'processing' THEN 'claim'
                WHEN NOT over.lapsed OR s.attempt_count >= s.max_attempts THEN 'dlq'
                WHEN stop.held_back OR s.started_at <= now() - interval '24 h'
                     AND s.job_type <> ALL (%(types)s::text[]) THEN 'release'
                ELSE 'rescue' END AS action
      FROM slice s JOIN room ON room.queue = s.queue CROSS JOIN LATERAL (
           SELECT room.paused OR s.job_type = ANY (ARRAY(SELECT t.job_type FROM trouble b
                                                           JOIN job_types t
                                                             ON t.depends_on = b.dependency
                                                          WHERE b.state <> 'closed'))
                  AS held_back) AS stop
     CROSS JOIN LATERAL (
           SELECT s.lease_until <= now() OR s.lease_until > now() + interval '10 s'
                  + coalesce((SELECT w.lease FROM job_workers w WHERE w.id = s.locked_by),
                             '1 h') AS lapsed) AS over
     WHERE CASE WHEN s.status <> 'processing' THEN s.run_after <= now()
                ELSE (over.lapsed OR s.started_at <= now() - interval '24 h')
                     AND NOT (SELECT p.now FROM patient p) END
), wanted AS (
    SELECT f.id, f.ord, f.lease, f.lease_until, f.lapsed, f.action, f.free, f.queue,
           f.run_after
      FROM found f
     WHERE f.action = 'dlq'
        OR f.action = 'claim' AND NOT f.held_back
        OR f.action = 'release' AND (f.known OR f.started_at <= now() - interval '24 h')
        OR f.known AND f.action = 'rescue' AND %(rescue)s::boolean
           AND f.attempt_count = (SELECT min(m.attempt_count) FROM found m
                                   WHERE m.known AND m.action = 'rescue')
), chosen AS (
    SELECT w.* FROM (
        SELECT w.*, row_number() OVER (PARTITION BY w.action = 'rescue'
                                       ORDER BY w.ord, w.run_after, w.id) AS nth,
               row_number() OVER (PARTITION BY w.queue, w.action IN ('claim', 'rescue')
                                  ORDER BY w.action DESC, w.ord, w.run_after, w.id) AS place
          FROM wanted w) AS w
     WHERE (w.action NOT IN ('claim', 'rescue') OR w.place <= w.free)
       AND (w.action <> 'rescue'
            OR w.nth <= (SELECT CASE min(m.attempt_count) WHEN 1 THEN 100 WHEN 2 THEN 10 ELSE 1 END
                           FROM found m WHERE m.known AND m.action = 'rescue'))
), locked AS MATERIALIZED (
    SELECT j.id, c.ord, c.action,
           CASE WHEN NOT c.lapsed THEN 'In processing for 24 hours: no more attempts'
                ELSE format('The lease of attempt %%s ran out: '
                            'its worker %%s died or lost the database',
                            j.attempt_count, j.locked_by) END
           || CASE WHEN j.intent_at IS NULL THEN ''
                   ELSE ', and what it had announced may have been done' END AS reason
      FROM chosen c JOIN job_logs j ON j.id = c.id
     WHERE j.lease = c.lease AND j.lease_until IS NOT DISTINCT FROM c.lease_until
       AND j.processed_at IS NULL AND j.run_after = c.run_after
     ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), changed AS (
    UPDATE job_logs j
       SET status = CASE l.action WHEN 'dlq' THEN 'dlq' WHEN 'release' THEN 'failed'
                                  ELSE 'processing' END,
           attempt_count = j.attempt_count + (l.action IN ('claim', 'rescue'))::integer,
           lease = j.lease + 1,
           started_at = CASE WHEN l.action IN ('claim', 'rescue') THEN now()
                             ELSE j.started_at END,
           lease_until = CASE WHEN l.action IN ('claim', 'rescue')
                              THEN now() + %(lease)s::interval END,
           locked_by = CASE WHEN l.action IN ('claim', 'rescue') THEN %(worker)s
                            ELSE j.locked_by END,
           processed_at = CASE WHEN l.action = 'dlq' THEN now() END,
           dead_at = CASE WHEN l.action = 'dlq' THEN now() END,
           error = CASE WHEN l.action = 'claim' THEN j.error ELSE l.reason END,
           history = CASE WHEN l.action = 'claim' THEN j.history ELSE
               pgqueue_history(j.history, jsonb_build_object(
                   'attempt', j.attempt_count, 'at', pgqueue_time(now()), 'worker', j.locked_by,
                   'error', l.reason)) END
      FROM locked l
     WHERE j.id = l.id
    RETURNING j.id, j.lease, l.ord, j.job_id, j.job_type, j.user_id, j.attempt_count,
              j.max_attempts, j.payload, j.created_at, j.run_after, l.action,
              j.intent_at IS NOT NULL AS uncertain
), left_behind AS (
    SELECT w.ord, count(*) FILTER (WHERE w.action = 'claim') AS due,
           count(*) FILTER (WHERE w.action = 'rescue') AS lapsed
      FROM wanted w WHERE w.id NOT IN (SELECT c.id FROM chosen c) GROUP BY w.ord
)
SELECT c.id, c.lease, c.ord AS lane, c.job_id, c.job_type, c.user_id, c.attempt_count,
       c.max_attempts, c.payload, c.created_at, c.run_after, c.action, c.uncertain,
       NULL::bigint AS seen, NULL::bigint AS due_left, NULL::bigint AS lapsed_left,
       NULL::timestamptz AS now, NULL::boolean AS registered, NULL::text[] AS trouble
  FROM changed c
UNION ALL
SELECT s.id, NULL, s.ord, NULL, NULL, NULL, NULL, NULL, NULL, NULL, s.run_after, NULL, NULL,
       s.seen, coalesce(b.due, 0), coalesce(b.lapsed, 0), NULL, NULL, NULL
  FROM (SELECT i.ord, (array_agg(i.id ORDER BY i.run_after, i.id))[count(*)] AS id,
               max(i.run_after) AS run_after, count(*) AS seen
          FROM slice i GROUP BY i.ord) AS s
  LEFT JOIN left_behind b ON b.ord = s.ord
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, now(), EXISTS (SELECT FROM beat),
       ARRAY(SELECT b.dependency || ' ' || b.state FROM trouble b ORDER BY 1)
