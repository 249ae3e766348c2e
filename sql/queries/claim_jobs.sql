-- Claims due jobs for one worker: room by room (the free slots of a queue), in it lane by lane (a
-- priority of that queue), oldest first, each lane from its cursor on. Types that depend on
-- something whose breaker is not closed are passed over, and so are rows that were put aside
-- because no statement gets past them. Three kinds of rows, each with columns of its own (all but
-- id, lane and run_after are null in the rows of another kind):
--   a job      id to uncertain; nth is its place among them
--   a lane     one that gave jobs: lane, taken (how many), and the place (run_after, id) of the
--              last of them
--   the clock  once: now; next_due, the microseconds until more is due (null when the claim was
--              full, or nothing is known of); which queues are paused; which dependencies are in
--              trouble ("name state")
-- Must run in autocommit and outside a pipeline: now() is the bound. Jobs are few columns of types
-- that are cheap to read.
WITH trouble AS MATERIALIZED (
    SELECT d.dependency, d.state FROM job_dependencies d
     WHERE d.state <> 'closed' OR d.failures <> '{}'
), room AS (
    SELECT r.ord, r.queue, r.free, coalesce(q.paused, false) AS paused
      FROM unnest(%(queues)s::text[], %(free)s::integer[]) WITH ORDINALITY AS r(queue, free, ord)
      LEFT JOIN job_queues q ON q.queue = r.queue
), lane AS (
    SELECT l.*
      FROM unnest(%(lane_rooms)s::integer[], %(lane_priorities)s::smallint[],
                  %(lane_run_afters)s::timestamptz[], %(lane_ids)s::uuid[])
           WITH ORDINALITY AS l(room, priority, run_after, id, ord)
), picked AS MATERIALIZED (
    -- The row's address goes along: it is locked, and found by that without a second way through an
    -- index. (A row that another worker took and gave back since this statement began is locked in
    -- a version that this one cannot change: then fewer jobs come back than lanes say.)
    SELECT taken.*, row_number() OVER (ORDER BY taken.ord, taken.run_after, taken.id) AS nth
      FROM room CROSS JOIN LATERAL (
          SELECT due.*, lane.ord
            FROM lane CROSS JOIN LATERAL (
                SELECT j.ctid AS address, j.run_after, j.id FROM job_logs j
                 WHERE j.queue = room.queue AND j.priority = lane.priority
                   AND j.processed_at IS NULL
                   AND j.status IN ('enqueued', 'failed')
                   AND j.job_type <> ALL (ARRAY(
                       SELECT t.job_type FROM trouble b
                         JOIN job_types t ON t.depends_on = b.dependency
                        WHERE b.state <> 'closed'))
                   AND (j.run_after, j.id) > (lane.run_after, lane.id) AND j.run_after <= now()
                   AND j.id <> ALL (%(aside)s::uuid[])
                 ORDER BY j.run_after, j.id LIMIT room.free FOR NO KEY UPDATE SKIP LOCKED
            ) AS due
           WHERE lane.room = room.ord
           LIMIT room.free
      ) AS taken
     WHERE NOT room.paused
), claimed AS (
    UPDATE job_logs j
       SET status = 'processing', attempt_count = j.attempt_count + 1, lease = j.lease + 1,
           started_at = now(), lease_until = now() + %(lease)s::interval, locked_by = %(worker)s
      FROM picked WHERE j.ctid = picked.address
    RETURNING j.id::text, j.lease, picked.ord, j.job_id, j.job_type, j.user_id, j.attempt_count,
              j.max_attempts, j.payload::text, j.created_at, picked.nth,
              j.intent_at IS NOT NULL AS uncertain
)
SELECT c.id, c.lease, c.ord AS lane, c.job_id, c.job_type, c.user_id, c.attempt_count,
       c.max_attempts, c.payload, c.created_at, c.nth, c.uncertain,
       NULL::timestamptz AS run_after, NULL::bigint AS taken,
       NULL::timestamptz AS now, NULL::bigint AS next_due, NULL::text[] AS paused,
       NULL::text[] AS trouble
  FROM claimed c
UNION ALL
SELECT p.id::text, NULL, p.ord, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       p.run_after, l.taken, NULL, NULL, NULL, NULL
  FROM (SELECT picked.ord, count(*) AS taken, max(picked.nth) AS last
          FROM picked GROUP BY picked.ord) AS l
  JOIN picked p ON p.nth = l.last
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, now(),
       CASE WHEN (SELECT count(*) FROM picked) < (SELECT sum(room.free) FROM room) THEN
           (SELECT (extract(epoch FROM min(later.run_after) - now()) * 1000000)::bigint
              FROM lane JOIN room ON room.ord = lane.room AND NOT room.paused
             CROSS JOIN LATERAL (
                SELECT j.run_after FROM job_logs j
                 WHERE j.queue = room.queue AND j.priority = lane.priority
                   AND j.processed_at IS NULL AND j.run_after > now()
                 ORDER BY j.run_after LIMIT 1
             ) AS later)
       END,
       ARRAY(SELECT room.queue FROM room WHERE room.paused),
       ARRAY(SELECT b.dependency || ' ' || b.state FROM trouble b)
