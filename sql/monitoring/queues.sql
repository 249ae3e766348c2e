-- A row for each queue that holds live jobs, was paused once, or has a live worker.
--
-- ready, scheduled   waiting jobs that are due, and those that are not yet; up to 100,000 of either
-- per priority processing         jobs that are held by a worker oldest_ready_s     how long the
-- first of the ready ones has been due workers, slots     live processes (seen within 30 s) that
-- serve the queue, and how many jobs they run at once together
--
-- ready above 0 and workers 0: no worker serves this queue; start `pgqueue worker --queue NAME:50`.
-- paused: `pgqueue resume NAME` when the reason is gone. oldest_ready_s growing with processing
-- near slots: more workers, or more slots.
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
    SELECT l.queue,
           count(*) FILTER (WHERE p.status <> 'processing' AND p.run_after <= now()) AS ready,
           count(*) FILTER (WHERE p.status <> 'processing' AND p.run_after > now()) AS scheduled,
           count(*) FILTER (WHERE p.status = 'processing') AS processing,
           extract(epoch FROM now() - min(p.run_after) FILTER (
               WHERE p.status <> 'processing' AND p.run_after <= now()))
               AS oldest_ready_s
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
     GROUP BY l.queue
), served AS (
    SELECT q.key AS queue, count(*) AS workers,
           sum(CASE WHEN q.value ~ '^[0-9]{1,6}$' THEN q.value::integer ELSE 0 END) AS slots
      FROM job_workers w CROSS JOIN LATERAL jsonb_each_text(w.queues) AS q
     WHERE w.kind = 'worker' AND w.seen_at > now() - interval '30 s'
     GROUP BY q.key
)
SELECT queue, coalesce(p.paused, false) AS paused, coalesce(v.ready, 0) AS ready,
       coalesce(v.scheduled, 0) AS scheduled,
       coalesce(v.processing, 0) AS processing,
       round(v.oldest_ready_s, 3)::float8 AS oldest_ready_s,
       coalesce(s.workers, 0) AS workers, coalesce(s.slots, 0) AS slots
  FROM live v FULL JOIN served s USING (queue) FULL JOIN job_queues p USING (queue)
 ORDER BY queue;
