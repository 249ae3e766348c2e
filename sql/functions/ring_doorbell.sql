-- Wakes as many sleeping workers of these queues as there are jobs, and returns how many. Call it
-- after the commit that made the jobs; a worker that is not woken looks by itself within its idle
-- interval. Only a sleeping worker costs a NOTIFY.
CREATE OR REPLACE FUNCTION ring_doorbell(queues text[], jobs integer DEFAULT 1) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH sleeper AS MATERIALIZED (
        SELECT w.id FROM job_workers w
         WHERE w.asleep AND w.queues ?| ring_doorbell.queues
           AND w.seen_at > now() - interval '15 s'
         ORDER BY w.id LIMIT ring_doorbell.jobs FOR NO KEY UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE job_workers w SET asleep = false FROM sleeper s WHERE w.id = s.id RETURNING w.id
    )
    SELECT pg_catalog.count(pg_catalog.pg_notify('pgqueue_' || woken.id, ''))::integer FROM woken
$$;

REVOKE ALL ON FUNCTION ring_doorbell(text[], integer) FROM PUBLIC;
