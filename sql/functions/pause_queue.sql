-- Stops or starts a queue for all workers. Jobs that run go on running.
CREATE OR REPLACE FUNCTION pause_queue(queue text, paused boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO job_queues (queue, paused)
    SELECT pause_queue.queue, true WHERE pause_queue.paused ON CONFLICT (queue) DO NOTHING;
    DELETE FROM job_queues q WHERE q.queue = pause_queue.queue AND NOT pause_queue.paused;
$$;

REVOKE ALL ON FUNCTION pause_queue(text, boolean) FROM PUBLIC;
