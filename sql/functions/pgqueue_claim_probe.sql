-- Starts one job as the probe of one of these dependencies, when its time has come and no worker
-- runs another probe of it. A job that has not failed yet, if there is one among the first thousand
-- of each lane: a job that fails by itself says little about the dependency. Then the longest
-- waiting one: a failed probe goes to the back of its lane.
CREATE OR REPLACE FUNCTION pgqueue_claim_probe(
    worker text, lease interval, queues text[], dependencies text[]
) RETURNS SETOF job_logs LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    open  job_dependencies;
    taken uuid;
BEGIN
    FOR open IN SELECT * FROM job_dependencies d
                 WHERE d.dependency = ANY (dependencies) AND d.state <> 'closed'
                   -- Before changed_at: the clock was set back since.
                   AND NOT tstzrange(least(d.changed_at - interval '10 s', d.probe_at),
                                     d.probe_at) @> now()
                 ORDER BY d.probe_at FOR UPDATE SKIP LOCKED LOOP
        -- In a statement of its own: it sees what was committed before the lock.
        CONTINUE WHEN open.state = 'half_open' AND EXISTS (
            SELECT FROM job_logs j WHERE j.id = open.probe_id AND j.lease = open.probe_lease
               AND j.status = 'processing' AND j.lease_until > now());
        SELECT lane.id INTO taken
          FROM unnest(queues) AS q(queue) CROSS JOIN generate_series(0, 9) AS p(priority)
         CROSS JOIN LATERAL (
              SELECT head.id, head.run_after, head.attempt_count > 0 AS failed
                FROM (SELECT j.id, j.run_after, j.job_type, j.attempt_count FROM job_logs j
                       WHERE j.queue = q.queue AND j.priority = p.priority
                         AND j.processed_at IS NULL AND j.status IN ('enqueued', 'failed')
                         AND j.run_after <= now()
                         -- Jobs of other broken dependencies keep their places for long.
                         AND j.job_type <> ALL (ARRAY(
                             SELECT t.job_type FROM job_dependencies b
                               JOIN job_types t ON t.depends_on = b.dependency
                              WHERE b.state <> 'closed' AND b.dependency <> open.dependency))
                       ORDER BY j.run_after, j.id LIMIT 1000) AS head
               WHERE head.job_type IN (SELECT t.job_type FROM job_types t
                                        WHERE t.depends_on = open.dependency)
               ORDER BY head.attempt_count > 0, head.run_after, head.id LIMIT 1
          ) AS lane
         WHERE NOT EXISTS (SELECT FROM job_queues s WHERE s.queue = q.queue AND s.paused)
         ORDER BY lane.failed, p.priority, lane.run_after, lane.id LIMIT 1;
        CONTINUE WHEN taken IS NULL;
        RETURN QUERY
        WITH free AS MATERIALIZED (
            SELECT j.id FROM job_logs j WHERE j.id = taken AND j.status IN ('enqueued', 'failed')
               FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE job_logs j
           SET status = 'processing', attempt_count = j.attempt_count + 1, lease = j.lease + 1,
               started_at = now(), lease_until = now() + pgqueue_claim_probe.lease,
               locked_by = worker
          FROM free WHERE j.id = free.id
        RETURNING j.*;
        IF FOUND THEN
            UPDATE job_dependencies d
               SET state = 'half_open', changed_at = now(), probe_id = taken,
                   probe_lease = (SELECT j.lease FROM job_logs j WHERE j.id = taken),
                   probe_worker = worker
             WHERE d.dependency = open.dependency;
            RETURN;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_claim_probe(text, interval, text[], text[]) FROM PUBLIC;
