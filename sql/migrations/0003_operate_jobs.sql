-- What operators and other programs may do to a job. None of these raises for a job that is not in
-- the right state: the answer says what the job is, whether it was changed, and why not.

CREATE TYPE job_change AS (job_id text, status text, changed boolean, message text);

CREATE FUNCTION unchanged_job(job_id text, expected text) RETURNS job_change LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT (j.job_id, j.status, false, pg_catalog.format('Job is %s, not %s', j.status, unchanged_job.expected))::job_change
                       FROM job_logs j WHERE j.job_id = unchanged_job.job_id),
                    (unchanged_job.job_id, NULL, false, 'Job not found')::job_change)
$$;

CREATE FUNCTION cancel_job(job_id text) RETURNS job_change LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- Ends a job that waits at once, and a running one by ending its lease: its worker stops the
-- handler at its next extension.
BEGIN
    UPDATE job_logs j
       SET status = 'cancelled', lease = j.lease + 1, lease_until = NULL, processed_at = clock_timestamp()
     WHERE j.job_id = cancel_job.job_id AND j.status IN ('enqueued', 'failed', 'processing');
    IF FOUND THEN RETURN (cancel_job.job_id, 'cancelled', true, 'Job cancelled')::job_change; END IF;
    RETURN unchanged_job(cancel_job.job_id, 'waiting or running'::text);
END
$$;

CREATE FUNCTION delete_dead_job(job_id text) RETURNS job_change LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- Takes a job out of the dead-letter queue. It becomes cancelled, so that neither its id nor its
-- place in a limit comes free.
BEGIN
    UPDATE job_logs j SET status = 'cancelled', dead_at = NULL
     WHERE j.job_id = delete_dead_job.job_id AND j.status = 'dlq';
    IF FOUND THEN RETURN (delete_dead_job.job_id, 'cancelled', true, 'Job deleted')::job_change; END IF;
    RETURN unchanged_job(delete_dead_job.job_id, 'dlq'::text);
END
$$;

CREATE FUNCTION replay_jobs(ids uuid[], spacing interval DEFAULT '0 s', payload jsonb DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- Sends ended jobs (dlq, cancelled) back to their queues, the n-th after n spacings, with attempts
-- from 0. Their history stays; a payload given here replaces the old one, which stays in the
-- history. Returns how many.
DECLARE
    replayed integer;
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT j.id FROM job_logs j WHERE j.id = ANY (ids) AND j.status IN ('dlq', 'cancelled')
         ORDER BY j.id FOR NO KEY UPDATE
    ), placed AS (
        SELECT l.id, row_number() OVER (ORDER BY i.ord) - 1 AS nth
          FROM locked l JOIN unnest(ids) WITH ORDINALITY AS i(id, ord) ON i.id = l.id
    )
    UPDATE job_logs j
       SET status = 'enqueued', attempt_count = 0, run_after = clock_timestamp() + spacing * p.nth, processed_at = NULL,
           dead_at = NULL, error = NULL, stack_trace = NULL, progress = NULL, progress_note = NULL,
           payload = coalesce(replay_jobs.payload, j.payload),
           history = job_history(j.history,
               jsonb_build_object('event', 'replayed', 'at', job_time(now()), 'was', j.status, 'error', j.error)
               || CASE WHEN replay_jobs.payload IS NULL THEN '{}' ELSE jsonb_build_object('payload', j.payload) END)
      FROM placed p WHERE j.id = p.id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END
$$;

CREATE FUNCTION replay_job(job_id text, payload jsonb DEFAULT NULL) RETURNS job_change
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF replay_jobs(ARRAY(SELECT j.id FROM job_logs j WHERE j.job_id = replay_job.job_id), interval '0 s', replay_job.payload) > 0 THEN
        RETURN (replay_job.job_id, 'enqueued', true, 'Job enqueued again')::job_change;
    END IF;
    RETURN unchanged_job(replay_job.job_id, 'dlq or cancelled'::text);
END
$$;

CREATE FUNCTION pause_queue(queue text, paused boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO job_queues (queue, paused) SELECT pause_queue.queue, true WHERE pause_queue.paused ON CONFLICT (queue) DO NOTHING;
    DELETE FROM job_queues q WHERE q.queue = pause_queue.queue AND NOT pause_queue.paused;
$$;

CREATE FUNCTION ring_doorbell(queues text[], jobs integer DEFAULT 1) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    -- Wakes as many sleeping workers of these queues as there are jobs. Call it after the commit
    -- that made the jobs; a worker that nobody wakes looks by itself within its idle interval. Only
    -- a worker that sleeps costs a NOTIFY.
    WITH sleeper AS MATERIALIZED (
        SELECT w.id FROM job_workers w
         WHERE w.asleep AND w.queues ?| ring_doorbell.queues AND w.seen_at > now() - interval '15 s'
         ORDER BY w.id LIMIT ring_doorbell.jobs FOR NO KEY UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE job_workers w SET asleep = false FROM sleeper s WHERE w.id = s.id RETURNING w.id
    )
    SELECT pg_catalog.count(pg_catalog.pg_notify('pgqueue_' || woken.id, ''))::integer FROM woken
$$;

CREATE FUNCTION dead_jobs(
    job_type text DEFAULT NULL, user_id text DEFAULT NULL, error text DEFAULT NULL, since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL, job_ids text[] DEFAULT NULL
) RETURNS SETOF job_logs LANGUAGE sql STABLE AS $$
    -- The dead-letter queue under a filter; what is null lets everything pass. error is a part of
    -- the error text, in any case.
    SELECT j.* FROM job_logs j
     WHERE j.dead_at IS NOT NULL
       AND (dead_jobs.job_type IS NULL OR j.job_type = dead_jobs.job_type)
       AND (dead_jobs.user_id IS NULL OR j.user_id = dead_jobs.user_id)
       AND (dead_jobs.error IS NULL OR position(lower(dead_jobs.error) IN lower(coalesce(j.error, ''))) > 0)
       AND (dead_jobs.since IS NULL OR j.dead_at >= dead_jobs.since)
       AND (dead_jobs.until IS NULL OR j.dead_at < dead_jobs.until)
       AND (dead_jobs.job_ids IS NULL OR j.job_id = ANY (dead_jobs.job_ids))
$$;

REVOKE ALL ON TYPE job_change FROM PUBLIC;
REVOKE ALL ON FUNCTION unchanged_job(text, text), cancel_job(text), delete_dead_job(text), replay_jobs(uuid[], interval, jsonb),
    replay_job(text, jsonb), pause_queue(text, boolean), ring_doorbell(text[], integer),
    dead_jobs(text, text, text, timestamptz, timestamptz, text[]) FROM PUBLIC;
