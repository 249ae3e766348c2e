-- What jobs depend on (a mail server, somebody's API), and whether it works: the circuit breaker. And what an attempt was about to
-- do when it was last heard of.
--
--   closed -----> open             five different jobs failed on it within 10 s and none succeeded, or one job knows that it is down
--   open -------> half_open        its time has come: one job of one of its types is started, the probe; all others wait
--   half_open --> closed           the probe succeeded
--   half_open --> open             it failed, or its worker is gone; the next one comes later
--
-- While it is not closed, no job of a type that depends on it is claimed, and failures on it burn no attempt.

CREATE TABLE job_dependencies (
    dependency  text PRIMARY KEY,
    state       text        NOT NULL DEFAULT 'closed',
    failures    jsonb       NOT NULL DEFAULT '{}',
    reason      text,
    opened_at   timestamptz,
    probe_at    timestamptz,
    probe_pause interval,
    probe_id    uuid,
    probe_lease bigint,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT state_is_closed_open_or_half_open CHECK (state IN ('closed', 'open', 'half_open')),
    CONSTRAINT open_dependency_has_a_time_for_its_probe
        CHECK ((state = 'closed') = (opened_at IS NULL) AND (state = 'closed') = (probe_at IS NULL)),
    CONSTRAINT probe_goes_with_half_open CHECK ((state = 'half_open') = (probe_id IS NOT NULL))
) WITH (fillfactor = 20);
COMMENT ON TABLE job_dependencies IS 'What jobs depend on, and whether it works. No row: nobody has had trouble with it.';
COMMENT ON COLUMN job_dependencies.failures IS 'While closed: jobs that failed on it since one last succeeded (row id -> when).';
COMMENT ON COLUMN job_dependencies.probe_at IS 'When the next probe may start.';

ALTER TABLE job_logs ADD COLUMN intent_at timestamptz, ADD COLUMN receipt text;
COMMENT ON COLUMN job_logs.intent_at IS 'An attempt said then that it does what cannot be taken back, and has not said how that ended.';
COMMENT ON COLUMN job_logs.receipt IS 'What the attempt that completed has to show for it, such as the answer of a mail server.';

CREATE FUNCTION dependency_failed(dependency text, jobs uuid[], down boolean, reason text, retry_after interval, succeeded_ago interval)
RETURNS text LANGUAGE plpgsql AS $$
-- These jobs failed on it; down: it is known to be broken, and no five are needed. succeeded_ago: when the caller last saw a job
-- succeed. Answers the state that follows.
DECLARE
    was    job_dependencies;
    recent jsonb;
BEGIN
    INSERT INTO job_dependencies (dependency) VALUES (dependency_failed.dependency) ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM job_dependencies d WHERE d.dependency = dependency_failed.dependency FOR UPDATE;
    IF was.state <> 'closed' THEN RETURN was.state; END IF;
    SELECT jsonb_object_agg(f.job, f.at) INTO recent
      FROM (SELECT o.key AS job, o.value AS at FROM jsonb_each_text(was.failures) AS o
             WHERE o.value::timestamptz > now() - least(interval '10 s', succeeded_ago)
             UNION SELECT n::text, now()::text FROM unnest(jobs) AS n) AS f;
    IF NOT down AND (SELECT count(*) FROM jsonb_object_keys(recent)) < 5 THEN
        UPDATE job_dependencies d SET failures = recent WHERE d.dependency = was.dependency;
        RETURN 'closed';
    END IF;
    UPDATE job_dependencies d
       SET state = 'open', failures = '{}', reason = dependency_failed.reason, opened_at = now(), changed_at = now(),
           probe_pause = CASE WHEN down THEN interval '5 s' ELSE interval '1 s' END,
           probe_at = now() + greatest(CASE WHEN down THEN interval '5 s' ELSE interval '1 s' END, retry_after)
     WHERE d.dependency = was.dependency;
    RETURN 'opened';
END
$$;

CREATE FUNCTION dependency_probed(dependency text, probe uuid, lease bigint, verdict text, reason text, retry_after interval)
RETURNS text LANGUAGE plpgsql AS $$
-- The probe ended: 'alive' closes the breaker, 'down' makes the next probe wait twice as long (at most 15 s), 'unclear' (the job
-- never got as far) lets the next one start at once. A probe that has been replaced decides nothing. Answers the state that follows.
DECLARE
    now_in text;
BEGIN
    UPDATE job_dependencies d
       SET state = CASE verdict WHEN 'alive' THEN 'closed' ELSE 'open' END, changed_at = now(), probe_id = NULL, probe_lease = NULL,
           failures = '{}',
           opened_at = CASE verdict WHEN 'alive' THEN NULL ELSE d.opened_at END,
           reason = CASE verdict WHEN 'down' THEN dependency_probed.reason ELSE d.reason END,
           probe_pause = CASE verdict WHEN 'down' THEN least(d.probe_pause * 2, interval '15 s') ELSE d.probe_pause END,
           probe_at = CASE verdict WHEN 'down' THEN now() + greatest(least(d.probe_pause * 2, interval '15 s'), retry_after)
                                   WHEN 'unclear' THEN now() END
     WHERE d.dependency = dependency_probed.dependency AND d.state = 'half_open'
       AND d.probe_id = probe AND d.probe_lease = dependency_probed.lease
    RETURNING d.state INTO now_in;
    RETURN coalesce(now_in, (SELECT d.state FROM job_dependencies d WHERE d.dependency = dependency_probed.dependency));
END
$$;

CREATE FUNCTION dependency_works(dependency text) RETURNS void LANGUAGE sql AS $$
    -- A job succeeded while others failed: theirs are ordinary failures.
    UPDATE job_dependencies d SET failures = '{}'
     WHERE d.dependency = dependency_works.dependency AND d.state = 'closed' AND d.failures <> '{}'
$$;

CREATE FUNCTION claim_probe(worker text, lease interval, queues text[], dependencies text[]) RETURNS SETOF job_logs LANGUAGE plpgsql AS $$
-- Starts one job as the probe of one of these dependencies whose time has come, if no other probe is under way, anywhere.
-- The longest waiting of its types among the first thousand of each lane: a failed probe goes to the back of its lane.
DECLARE
    open  job_dependencies;
    taken uuid;
BEGIN
    FOR open IN SELECT * FROM job_dependencies d
                 WHERE d.dependency = ANY (dependencies) AND d.state <> 'closed' AND d.probe_at <= now()
                 ORDER BY d.probe_at FOR UPDATE SKIP LOCKED LOOP
        -- In a statement of its own: what was committed before the lock is seen here.
        CONTINUE WHEN open.state = 'half_open' AND EXISTS (
            SELECT FROM job_logs j WHERE j.id = open.probe_id AND j.lease = open.probe_lease AND j.status = 'processing'
               AND j.lease_until > now());
        SELECT lane.id INTO taken
          FROM unnest(queues) AS q(queue) CROSS JOIN generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
              SELECT head.id, head.run_after
                FROM (SELECT j.id, j.run_after, j.job_type FROM job_logs j
                       WHERE j.queue = q.queue AND j.priority = p.priority AND j.processed_at IS NULL
                         AND j.status IN ('enqueued', 'failed') AND j.run_after <= now()
                       ORDER BY j.run_after, j.id LIMIT 1000) AS head
               WHERE head.job_type IN (SELECT t.job_type FROM job_types t WHERE t.depends_on = open.dependency)
               ORDER BY head.run_after, head.id LIMIT 1
          ) AS lane
         WHERE NOT EXISTS (SELECT FROM job_queues s WHERE s.queue = q.queue AND s.paused)
         ORDER BY p.priority, lane.run_after, lane.id LIMIT 1;
        CONTINUE WHEN taken IS NULL;
        RETURN QUERY
        WITH free AS MATERIALIZED (
            SELECT j.id FROM job_logs j WHERE j.id = taken AND j.status IN ('enqueued', 'failed') FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE job_logs j
           SET status = 'processing', attempt_count = j.attempt_count + 1, lease = j.lease + 1, started_at = now(),
               lease_until = now() + claim_probe.lease, locked_by = worker
          FROM free WHERE j.id = free.id
        RETURNING j.*;
        IF FOUND THEN
            UPDATE job_dependencies d
               SET state = 'half_open', changed_at = now(), probe_id = taken,
                   probe_lease = (SELECT j.lease FROM job_logs j WHERE j.id = taken)
             WHERE d.dependency = open.dependency;
            RETURN;
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION replay_jobs(ids uuid[], spacing interval DEFAULT '0 s', payload jsonb DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- Sends ended jobs (dlq, cancelled) back to their queues, the n-th after n spacings, with attempts from 0. Their history stays; a
-- payload given here replaces the old one, which stays in the history. Returns how many.
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
           intent_at = NULL,  -- whoever replays has decided what the doubtful attempt before is worth
           payload = coalesce(replay_jobs.payload, j.payload),
           history = job_history(j.history,
               jsonb_build_object('event', 'replayed', 'at', job_time(now()), 'was', j.status, 'error', j.error)
               || CASE WHEN replay_jobs.payload IS NULL THEN '{}' ELSE jsonb_build_object('payload', j.payload) END)
      FROM placed p WHERE j.id = p.id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END
$$;
