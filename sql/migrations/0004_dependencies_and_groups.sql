-- What jobs depend on (a mail server, somebody's API), and whether it works: the circuit breaker.
-- And what an attempt was about to do when it was last heard of.
--
--   closed -----> open             five different jobs failed on it within 10 s and none succeeded, or one job knows that it is down
--   open -------> half_open        its time has come: one job of one of its types is started, the probe; all others wait
--   half_open --> closed           the probe succeeded
--   half_open --> open             it failed, or its worker is gone; the next one comes later
--
-- While it is not closed, no job of a type that depends on it is claimed, and failures on it burn
-- no attempt.

CREATE TABLE job_dependencies (
    dependency  text PRIMARY KEY,
    state       text        NOT NULL DEFAULT 'closed',
    failures    jsonb       NOT NULL DEFAULT '{}',
    reason      text,
    opened_at   timestamptz,
    closed_at   timestamptz,
    probe_at    timestamptz,
    probe_pause interval,
    probe_id    uuid,
    probe_lease bigint,
    probe_worker text,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT state_is_closed_open_or_half_open CHECK (state IN ('closed', 'open', 'half_open')),
    CONSTRAINT open_dependency_has_a_time_for_its_probe
        CHECK ((state = 'closed') = (opened_at IS NULL) AND (state = 'closed') = (probe_at IS NULL)),
    CONSTRAINT failures_are_an_object CHECK (jsonb_typeof(failures) = 'object'),
    CONSTRAINT times_are_from_1970_to_9998
        CHECK (least(opened_at, closed_at, probe_at, changed_at) >= '1970-01-01 00:00:00+00'
               AND greatest(opened_at, closed_at, probe_at, changed_at) < '9999-01-01 00:00:00+00'),
    CONSTRAINT probe_pause_is_at_most_a_day CHECK (probe_pause BETWEEN '0 s' AND '1 day'),
    CONSTRAINT probe_goes_with_half_open CHECK ((state = 'half_open') = (probe_id IS NOT NULL))
) WITH (fillfactor = 20);
COMMENT ON TABLE job_dependencies IS 'What jobs depend on, and whether it works. No row: nobody has had trouble with it.';
COMMENT ON COLUMN job_dependencies.failures IS 'While closed: jobs that failed on it since one last succeeded (row id -> when).';
COMMENT ON COLUMN job_dependencies.closed_at IS 'When it last closed: failures of attempts that began before do not count.';
COMMENT ON COLUMN job_dependencies.probe_at IS 'When the next probe may start.';

-- With half of each page free, what a claim adds to every row of a page does not always fit in
-- beside it: for some lengths of row one claim in six was not heap-only.
ALTER TABLE job_logs SET (fillfactor = 45);

ALTER TABLE job_logs ADD COLUMN intent_at timestamptz, ADD COLUMN receipt text,
    ADD CONSTRAINT intent_is_from_1970_to_9998_use_job_intend
        CHECK (intent_at >= '1970-01-01 00:00:00+00' AND intent_at < '9999-01-01 00:00:00+00');
COMMENT ON COLUMN job_logs.intent_at IS 'An attempt said then that it does what cannot be taken back, and has not said how that ended.';
COMMENT ON COLUMN job_logs.receipt IS 'What the attempt that completed has to show for it, such as the answer of a mail server.';

CREATE FUNCTION dependency_failed(dependency text, jobs uuid[], down boolean, reason text, retry_after interval, succeeded_ago interval)
RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
-- These jobs failed on it; down: it is known to be broken, and no five are needed. succeeded_ago:
-- when the caller last saw a job succeed. Answers the state that follows.
DECLARE
    was    job_dependencies;
    fresh  uuid[];
    recent jsonb;
BEGIN
    INSERT INTO job_dependencies (dependency) VALUES (dependency_failed.dependency) ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM job_dependencies d WHERE d.dependency = dependency_failed.dependency FOR UPDATE;
    IF was.state <> 'closed' THEN RETURN was.state; END IF;
    -- What was in flight while it was open says nothing of how it is now.
    SELECT array_agg(n) INTO fresh FROM unnest(jobs) AS n
     WHERE NOT EXISTS (SELECT FROM job_logs j WHERE j.id = n AND j.started_at < was.closed_at AND was.closed_at <= now());
    IF fresh IS NULL AND jobs <> '{}' THEN RETURN was.state; END IF;
    SELECT jsonb_object_agg(f.job, f.at) INTO recent
      FROM (SELECT o.key AS job, o.value AS at FROM jsonb_each_text(was.failures) AS o
             WHERE job_moment(o.value) > now() - least(interval '10 s', succeeded_ago)
             UNION SELECT n::text, to_jsonb(now()) #>> '{}' FROM unnest(fresh) AS n) AS f;
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

CREATE FUNCTION dependency_probed(dependency text, probe uuid, lease bigint, worker text, verdict text, reason text, retry_after interval)
RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
-- The probe ended: 'alive' closes the breaker, 'down' makes the next probe wait twice as long (at
-- most 15 s), 'unclear' (the job never got as far) lets the next one start at once. A probe that
-- has been replaced decides nothing. Answers the state that follows.
DECLARE
    now_in text;
BEGIN
    UPDATE job_dependencies d
       SET state = CASE verdict WHEN 'alive' THEN 'closed' ELSE 'open' END, changed_at = now(), probe_id = NULL, probe_lease = NULL,
           probe_worker = NULL, failures = '{}',
           opened_at = CASE verdict WHEN 'alive' THEN NULL ELSE d.opened_at END,
           closed_at = CASE verdict WHEN 'alive' THEN now() ELSE d.closed_at END,
           reason = CASE verdict WHEN 'down' THEN dependency_probed.reason ELSE d.reason END,
           probe_pause = CASE verdict WHEN 'down' THEN least(d.probe_pause * 2, interval '15 s') ELSE d.probe_pause END,
           probe_at = CASE verdict WHEN 'down' THEN now() + greatest(least(d.probe_pause * 2, interval '15 s'), retry_after)
                                   WHEN 'unclear' THEN now() END
     WHERE d.dependency = dependency_probed.dependency AND d.state = 'half_open'
       AND d.probe_id = probe AND d.probe_lease = dependency_probed.lease AND d.probe_worker = worker
    RETURNING d.state INTO now_in;
    RETURN coalesce(now_in, (SELECT d.state FROM job_dependencies d WHERE d.dependency = dependency_probed.dependency));
END
$$;

CREATE FUNCTION dependency_works(dependency text) RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS $$
    -- A job succeeded while others failed: theirs are ordinary failures.
    UPDATE job_dependencies d SET failures = '{}'
     WHERE d.dependency = dependency_works.dependency AND d.state = 'closed' AND d.failures <> '{}'
$$;

CREATE FUNCTION claim_probe(worker text, lease interval, queues text[], dependencies text[]) RETURNS SETOF job_logs
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
-- Starts one job as the probe of one of these dependencies whose time has come, if no other probe
-- is under way, anywhere. One that has not failed yet, if there is one among the first thousand of
-- each lane: a job that fails by itself says little of what it depends on. Then the longest
-- waiting: a failed probe goes to the back of its lane.
DECLARE
    open  job_dependencies;
    taken uuid;
BEGIN
    FOR open IN SELECT * FROM job_dependencies d
                 WHERE d.dependency = ANY (dependencies) AND d.state <> 'closed'
                   -- Before it changed: the clock was set back since.
                   AND NOT tstzrange(least(d.changed_at - interval '10 s', d.probe_at), d.probe_at) @> now()
                 ORDER BY d.probe_at FOR UPDATE SKIP LOCKED LOOP
        -- In a statement of its own: what was committed before the lock is seen here.
        CONTINUE WHEN open.state = 'half_open' AND EXISTS (
            SELECT FROM job_logs j WHERE j.id = open.probe_id AND j.lease = open.probe_lease AND j.status = 'processing'
               AND j.lease_until > now());
        SELECT lane.id INTO taken
          FROM unnest(queues) AS q(queue) CROSS JOIN generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (
              SELECT head.id, head.run_after, head.attempt_count > 0 AS failed
                FROM (SELECT j.id, j.run_after, j.job_type, j.attempt_count FROM job_logs j
                       WHERE j.queue = q.queue AND j.priority = p.priority AND j.processed_at IS NULL
                         AND j.status IN ('enqueued', 'failed') AND j.run_after <= now()
                         AND j.job_type <> ALL (ARRAY(
                             SELECT t.job_type FROM job_dependencies b JOIN job_types t ON t.depends_on = b.dependency
                              WHERE b.state <> 'closed' AND b.dependency <> open.dependency))  -- they keep their places for long
                       ORDER BY j.run_after, j.id LIMIT 1000) AS head
               WHERE head.job_type IN (SELECT t.job_type FROM job_types t WHERE t.depends_on = open.dependency)
               ORDER BY head.attempt_count > 0, head.run_after, head.id LIMIT 1
          ) AS lane
         WHERE NOT EXISTS (SELECT FROM job_queues s WHERE s.queue = q.queue AND s.paused)
         ORDER BY lane.failed, p.priority, lane.run_after, lane.id LIMIT 1;
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
                   probe_lease = (SELECT j.lease FROM job_logs j WHERE j.id = taken), probe_worker = worker
             WHERE d.dependency = open.dependency;
            RETURN;
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION replay_jobs(ids uuid[], spacing interval DEFAULT '0 s', payload jsonb DEFAULT NULL) RETURNS integer
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
          FROM locked l JOIN pg_catalog.unnest(ids) WITH ORDINALITY AS i(id, ord) ON i.id = l.id
    )
    UPDATE job_logs j
       SET status = 'enqueued', attempt_count = 0, run_after = clock_timestamp() + spacing * p.nth::float8, processed_at = NULL,
           dead_at = NULL, error = NULL, stack_trace = NULL, progress = NULL, progress_note = NULL,
           intent_at = NULL,  -- whoever replays has decided what the doubtful attempt before is worth
           payload = coalesce(replay_jobs.payload, j.payload),
           history = job_history(j.history,
               pg_catalog.jsonb_build_object('event', 'replayed', 'at', job_time(now()), 'was', j.status, 'error', j.error)
               || CASE WHEN replay_jobs.payload IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('payload', j.payload) END)
      FROM placed p WHERE j.id = p.id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END
$$;

-- Enqueueing many at once. What offer_jobs() answered row by row is here told only of the jobs that
-- were not created; the rest saves more time than the insert itself takes. (offer_jobs stays for
-- the release before, and for types with a limit.)

-- ord null: about a job type (job_id) and its queue; else about the job that was the ord-th given,
-- from 1.
CREATE TYPE job_answer AS (ord integer, job_id text, status text, created boolean, retry_after interval, refusal text, queue text);

CREATE FUNCTION job_rows(jobs jsonb, at timestamptz) RETURNS TABLE (
    job_id text, job_type text, user_id text, payload jsonb, payload_digest bytea, queue text, priority smallint,
    run_after timestamptz, max_attempts smallint, created_at timestamptz
) LANGUAGE sql STABLE AS $$
    -- The rows of jobs as offer_many() takes them, in the order in which everybody inserts. Part of
    -- the statement that calls it.
    SELECT i.job_id, i.job_type, coalesce(i.user_id, 'system'),
           job_stored(coalesce(i.payload, 'null'), i.filled, t.user_from),
           job_digest(i.job_type, coalesce(i.user_id, 'system'), coalesce(i.payload, 'null')), coalesce(i.queue, t.queue),
           coalesce(i.priority, 5)::smallint,
           coalesce(i.run_after, at + pg_catalog.make_interval(secs => coalesce(i.delay, (i.ord - pg_catalog.jsonb_array_length(jobs))::float8 / 1000000::float8))),
           coalesce(i.max_attempts, t.max_attempts)::smallint, at
      FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (job_id text, job_type text, user_id text, payload jsonb, filled jsonb, queue text,
                                                   priority integer, run_after timestamptz, delay float8, max_attempts integer))
           WITH ORDINALITY AS i(job_id, job_type, user_id, payload, filled, queue, priority, run_after, delay, max_attempts, ord)
      JOIN job_types t ON t.job_type = i.job_type
     ORDER BY i.job_id COLLATE "C", i.ord
$$;

CREATE FUNCTION offer_many(jobs jsonb, types text[]) RETURNS SETOF job_answer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET work_mem = '64MB'  -- ten thousand jobs are sorted
AS $$
-- The jobs are those of offer_jobs(), each with a job_id; types are all types among them. Jobs of
-- one queue and priority start in the order in which they are given.
DECLARE
    at      timestamptz := clock_timestamp();
    mine    jsonb;
    strange text;
BEGIN
    SELECT u.job_type INTO strange FROM pg_catalog.unnest(types) AS u(job_type)
     WHERE NOT EXISTS (SELECT FROM job_types t WHERE t.job_type = u.job_type) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'unknown job type %', strange USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Job types are published by "pgqueue migrate" and by every worker that has a task for them.';
    END IF;
    -- Which way they go hangs on their types, so that a list which leaves one out is a way round
    -- its limit.
    IF EXISTS (SELECT FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_type text) WHERE (i.job_type = ANY (types)) IS NOT TRUE) THEN
        RAISE EXCEPTION 'types must name every job type among the jobs' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT t.job_type INTO strange FROM job_types t WHERE t.job_type = ANY (types) AND t.admin AND NOT job_admin() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'job type % is for administrators', strange USING ERRCODE = 'insufficient_privilege',
            HINT = 'Connect as a member of pgqueue_operator: see sql/roles.sql.';
    END IF;
    RETURN QUERY SELECT NULL::integer, t.job_type, NULL, NULL::boolean, NULL::interval, NULL, t.queue
                   FROM job_types t WHERE t.job_type = ANY (types);
    IF EXISTS (SELECT FROM job_types t WHERE t.job_type = ANY (types) AND (t.limit_count IS NOT NULL OR t.user_from IS NOT NULL)) THEN
        RETURN QUERY SELECT o.ord::integer, o.job_id, o.status, false, o.retry_after, o.refusal, o.queue
                       FROM offer_jobs(jobs) WITH ORDINALITY AS o(job_id, status, created, retry_after, refusal, queue, ord)
                      WHERE NOT o.created;
        RETURN;
    END IF;

    BEGIN
        -- To look for a conflict at every row costs a tenth of the whole, and there is hardly ever
        -- one.
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after, max_attempts, created_at)
        SELECT r.* FROM job_rows(jobs, at) AS r;
    EXCEPTION WHEN unique_violation THEN
        WITH inserted AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after, max_attempts,
                                  created_at)
            SELECT r.* FROM job_rows(jobs, at) AS r ON CONFLICT (job_id) DO NOTHING RETURNING job_id
        )
        SELECT coalesce(pg_catalog.jsonb_object_agg(i.job_id, true), '{}') INTO mine FROM inserted i;
    END;
    IF mine IS NULL THEN
        IF NOT EXISTS (SELECT FROM job_tombstones)
           OR NOT EXISTS (SELECT FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text)
                            JOIN job_tombstones t ON t.id_hash = job_id_hash(i.job_id)) THEN
            RETURN;
        END IF;
        SELECT pg_catalog.jsonb_object_agg(i.job_id, true) INTO mine FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text);
    END IF;
    -- Some ids were known, perhaps by a tombstone. (Sets are objects: a plan that does not know how
    -- long an array is would join it row by row.) After the insert, not before: retention may have
    -- turned a row into a tombstone while we looked.
    WITH undone AS (
        DELETE FROM job_logs j USING pg_catalog.jsonb_object_keys(mine) AS m(job_id), job_tombstones t
         WHERE j.job_id = m.job_id AND t.id_hash = job_id_hash(m.job_id)
        RETURNING j.job_id
    )
    SELECT coalesce(mine, '{}') - coalesce(pg_catalog.array_agg(u.job_id), '{}') INTO mine FROM undone u;
    RETURN QUERY
    SELECT i.ord::integer, i.job_id, CASE WHEN k.digest = i.digest THEN k.status END, false, NULL::interval,
           CASE WHEN k.digest <> i.digest THEN 'duplicate_payload' END, NULL
      FROM (SELECT i.ord, i.job_id, job_digest(i.job_type, coalesce(i.user_id, 'system'), coalesce(i.payload, 'null')) AS digest,
                   row_number() OVER (PARTITION BY i.job_id ORDER BY i.ord) = 1 AS first
              FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (job_id text, job_type text, user_id text, payload jsonb))
                   WITH ORDINALITY AS i(job_id, job_type, user_id, payload, ord)) AS i
     CROSS JOIN LATERAL (
           SELECT j.status, j.payload_digest AS digest FROM job_logs j WHERE j.job_id = i.job_id
           UNION ALL
           SELECT t.outcome, t.digest FROM job_tombstones t WHERE t.id_hash = job_id_hash(i.job_id)
           LIMIT 1) AS k
     WHERE NOT (i.first AND mine ? i.job_id);
END
$$;

CREATE FUNCTION offer_group(jobs jsonb, types text[]) RETURNS SETOF job_answer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET lock_timeout = '100ms'  -- one that has to wait for somebody's open transaction must not hold up the others: each then goes alone
AS $$
-- Jobs of callers who know nothing of each other, each as by offer_job(), in one commit; answered
-- as by offer_many(). Locks and rows are taken in one order.
DECLARE
    bucket bigint;
    item   record;
    moment timestamptz;
    offer  job_offer;
BEGIN
    IF NOT EXISTS (SELECT FROM job_types t WHERE t.job_type = ANY (types) AND (t.limit_count IS NOT NULL OR t.user_from IS NOT NULL)) THEN
        RETURN QUERY SELECT * FROM offer_many(jobs, types);
        RETURN;
    END IF;
    RETURN QUERY SELECT NULL::integer, t.job_type, NULL, NULL::boolean, NULL::interval, NULL, t.queue
                   FROM job_types t WHERE t.job_type = ANY (types);
    FOR bucket IN
        SELECT DISTINCT limit_lock(i.job_type, coalesce(i.user_id, i.payload ->> t.user_from, 'system'))
          FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_type text, user_id text, payload jsonb) JOIN job_types t ON t.job_type = i.job_type
         WHERE t.limit_count IS NOT NULL ORDER BY 1
    LOOP
        PERFORM pg_catalog.pg_advisory_xact_lock(bucket);
    END LOOP;
    FOR item IN
        SELECT i.*
          FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (job_id text, job_type text, user_id text, payload jsonb, filled jsonb, queue text,
                                                       priority integer, run_after timestamptz, delay float8, max_attempts integer))
               WITH ORDINALITY AS i(job_id, job_type, user_id, payload, filled, queue, priority, run_after, delay, max_attempts, ord)
         ORDER BY i.job_id COLLATE "C", i.ord
    LOOP
        -- What most of them are: new, and within the limit. Its lock is held since before this
        -- statement, so that it may count and insert.
        moment := clock_timestamp();
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after, max_attempts, created_at)
        SELECT item.job_id, t.job_type, o.owner, job_stored(o.payload, item.filled, t.user_from),
               job_digest(t.job_type, o.owner, o.payload), coalesce(item.queue, t.queue), coalesce(item.priority, 5),
               coalesce(item.run_after, moment + pg_catalog.make_interval(secs => coalesce(item.delay, 0))),
               coalesce(item.max_attempts, t.max_attempts), moment
          FROM job_types t CROSS JOIN LATERAL (
               SELECT coalesce(item.payload, 'null') AS payload,
                      CASE WHEN t.user_from IS NULL THEN item.user_id ELSE item.payload ->> t.user_from END AS owner) AS o
         WHERE t.job_type = item.job_type AND NOT t.admin AND o.owner = coalesce(item.user_id, o.owner)
           AND (t.limit_count IS NULL OR pg_catalog.current_setting('transaction_isolation') = 'read committed' AND NOT EXISTS (
                SELECT FROM (SELECT FROM job_logs j
                              WHERE j.user_id = o.owner AND j.job_type = t.job_type AND j.created_at > moment - job_span(t.limit_window)
                              ORDER BY j.created_at DESC OFFSET t.limit_count - 1 LIMIT 1) AS last))
        ON CONFLICT (job_id) DO NOTHING;
        IF FOUND THEN
            CONTINUE WHEN NOT EXISTS (SELECT FROM job_tombstones t WHERE t.id_hash = job_id_hash(item.job_id));
            DELETE FROM job_logs j WHERE j.job_id = item.job_id;
        END IF;
        offer := offer_job(item.job_type, coalesce(item.payload, 'null'), item.job_id, item.user_id, item.queue, item.priority,
                           coalesce(item.run_after, clock_timestamp() + pg_catalog.make_interval(secs => item.delay)), item.max_attempts,
                           item.filled);
        IF NOT offer.created THEN
            RETURN NEXT (item.ord, offer.job_id, offer.status, false, offer.retry_after, offer.refusal, offer.queue)::job_answer;
        END IF;
    END LOOP;
END
$$;

-- As in 0002, but for two things: of several jobs with one id the first was looked at, and when the
-- limit refused it, so were the others; and rows are inserted in the order of everybody here,
-- whatever the database's collation.
CREATE OR REPLACE FUNCTION offer_jobs(jobs jsonb) RETURNS SETOF job_offer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan  -- a plan made without knowing the arrays' length joins them row by row
AS $$
-- Many jobs in one call: an array of objects with job_type and payload, and as with offer_job
-- job_id, user_id, queue, priority, run_after, max_attempts, filled; or delay, in seconds from now.
-- (One document is parsed thirty times as fast as an array of jsonb.) One answer per item, in
-- order. Of one user's share of a limit the earlier items take the first places.
DECLARE
    items    job_item[];
    wrong    record;
    bucket   bigint;
    open     integer[];   -- not yet decided, by ord
    admitted integer[];
    crowded  integer[];   -- found no place
    refused  integer[] := '{}';
    placed   integer[];   -- inserted
    buried   integer[];   -- and undone, for they have a tombstone
    done     integer[] := '{}';
BEGIN
    SELECT i.job_type, t.job_type IS NULL AS unknown, t.user_from,
           i.user_id IS NULL AND t.limit_count IS NOT NULL AND i.named IS NULL AS nobody, t.admin AND NOT job_admin() AS closed
      INTO wrong
      FROM (SELECT e.item ->> 'job_type'::text AS job_type, e.item ->> 'user_id'::text AS user_id,
                   e.item -> 'payload'::text ->> k.user_from AS named, e.item -> 'payload'::text AS payload, e.ord
              FROM pg_catalog.jsonb_array_elements(jobs) WITH ORDINALITY AS e(item, ord)
              LEFT JOIN job_types k ON k.job_type = e.item ->> 'job_type'::text) AS i
      LEFT JOIN job_types t ON t.job_type = i.job_type
     WHERE t.job_type IS NULL OR i.payload IS NULL
        OR i.user_id IS NULL AND t.limit_count IS NOT NULL AND i.named IS NULL
        OR i.user_id IS NOT NULL AND t.user_from IS NOT NULL AND i.user_id IS DISTINCT FROM i.named
        OR t.admin AND NOT job_admin()
     ORDER BY i.ord LIMIT 1;
    IF FOUND THEN
        IF wrong.unknown THEN
            RAISE EXCEPTION 'unknown job type %', wrong.job_type USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Job types are published by "pgqueue migrate" and by every worker that has a task for them.';
        ELSIF wrong.closed THEN
            RAISE EXCEPTION 'job type % is for administrators', wrong.job_type USING ERRCODE = 'insufficient_privilege',
                HINT = 'Connect as a member of pgqueue_operator: see sql/roles.sql.';
        ELSIF wrong.nobody THEN
            RAISE EXCEPTION 'job type % needs a user_id: it has a limit per user', wrong.job_type
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF wrong.user_from IS NOT NULL THEN
            RAISE EXCEPTION 'user_id is not the % of the payload', wrong.user_from USING ERRCODE = 'invalid_parameter_value';
        END IF;
        RAISE EXCEPTION 'a job needs a payload' USING ERRCODE = 'null_value_not_allowed';
    END IF;

    SELECT pg_catalog.array_agg((i.ord, coalesce(i.item ->> 'job_id'::text, i.job_type || '-' || job_uuid()::text), i.job_type, i.owner,
                      i.payload, job_stored(i.payload, i.item -> 'filled'::text, i.user_from), job_digest(i.job_type, i.owner, i.payload),
                      coalesce(i.item ->> 'queue'::text, i.queue), (i.item ->> 'priority'::text)::integer,
                      coalesce((i.item ->> 'run_after'::text)::timestamptz,
                               clock_timestamp() + pg_catalog.make_interval(secs => (i.item ->> 'delay'::text)::float8)),
                      coalesce((i.item ->> 'max_attempts'::text)::integer, i.max_attempts), i.limit_count, job_span(i.limit_window))::job_item
                     ORDER BY i.ord)
      INTO items
      FROM (SELECT e.ord::integer, e.item, e.item -> 'payload'::text AS payload, t.job_type, t.queue, t.max_attempts, t.limit_count,
                   t.limit_window, t.user_from,
                   coalesce(e.item ->> 'user_id'::text, e.item -> 'payload'::text ->> t.user_from, 'system') AS owner
              FROM pg_catalog.jsonb_array_elements(jobs) WITH ORDINALITY AS e(item, ord)
              JOIN job_types t ON t.job_type = e.item ->> 'job_type'::text) AS i;

    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed'
       AND EXISTS (SELECT FROM pg_catalog.unnest(items) i WHERE i.limit_count IS NOT NULL) THEN
        RAISE EXCEPTION 'a job type among these has a limit: enqueue them in a READ COMMITTED transaction'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    FOR bucket IN SELECT DISTINCT limit_lock(i.job_type, i.user_id) FROM pg_catalog.unnest(items) i
                   WHERE i.limit_count IS NOT NULL ORDER BY 1 LOOP
        PERFORM pg_catalog.pg_advisory_xact_lock(bucket);
    END LOOP;

    SELECT pg_catalog.array_agg(i.ord) INTO open FROM pg_catalog.unnest(items) i;
    LOOP
        -- Who may in: the first of each id, and of a limited type only ids that nobody has, no more
        -- than the user has places left.
        SELECT pg_catalog.array_agg(f.ord) FILTER (WHERE f.fits), pg_catalog.array_agg(f.ord) FILTER (WHERE NOT f.fits) INTO admitted, crowded
          FROM (SELECT c.ord, c.limit_count IS NULL OR
                       row_number() OVER (PARTITION BY c.job_type, c.user_id ORDER BY c.ord)
                       + (SELECT count(*) FROM (SELECT FROM job_logs j
                                                 WHERE c.limit_count IS NOT NULL
                                                   AND j.user_id = c.user_id AND j.job_type = c.job_type
                                                   AND j.created_at > clock_timestamp() - c.limit_window
                                                 LIMIT c.limit_count) AS used) <= c.limit_count AS fits
                  FROM (SELECT DISTINCT ON (i.job_id) i.ord, i.job_id, i.job_type, i.user_id, i.limit_count, i.limit_window
                          FROM pg_catalog.unnest(items) i WHERE i.ord = ANY (open)
                         ORDER BY i.job_id, i.ord) AS c
                 WHERE c.limit_count IS NULL OR NOT EXISTS (SELECT FROM known_job(c.job_id, ''::bytea))) AS f;

        WITH written AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after,
                                  max_attempts, created_at)
            SELECT i.job_id, i.job_type, i.user_id,
                   i.filled, i.digest,
                   i.queue, coalesce(i.priority, 5), coalesce(i.run_after, clock_timestamp()), i.max_attempts,
                   clock_timestamp()
              FROM pg_catalog.unnest(items) AS i
             WHERE i.ord = ANY (admitted)
             ORDER BY i.job_id COLLATE "C", i.ord
            ON CONFLICT (job_id) DO NOTHING
            RETURNING job_logs.job_id
        )
        SELECT pg_catalog.array_agg(i.ord) INTO placed FROM written w JOIN pg_catalog.unnest(items) i ON i.job_id = w.job_id
         WHERE i.ord = ANY (admitted);

        WITH undone AS (
            DELETE FROM job_logs j USING pg_catalog.unnest(items) i, job_tombstones t
             WHERE i.ord = ANY (placed) AND j.job_id = i.job_id AND t.id_hash = job_id_hash(i.job_id)
            RETURNING i.ord
        )
        SELECT coalesce(pg_catalog.array_agg(u.ord), '{}') INTO buried FROM undone u;
        done := pg_catalog.array_cat(done, (SELECT pg_catalog.array_agg(p) FROM pg_catalog.unnest(placed) p WHERE p <> ALL (buried)));

        EXIT WHEN admitted IS NULL AND crowded IS NULL;
        -- A place that was granted to an id which somebody else took meanwhile goes to those that
        -- found none. Where there was no such place they are refused, and whoever brought the same
        -- id after them has a turn of its own.
        IF coalesce(pg_catalog.cardinality(placed), 0) = coalesce(pg_catalog.cardinality(admitted), 0) THEN
            refused := pg_catalog.array_cat(refused, crowded);
        END IF;
        SELECT pg_catalog.array_agg(o) INTO open
          FROM pg_catalog.unnest(open) AS o JOIN pg_catalog.unnest(items) i ON i.ord = o
         WHERE o <> ALL (coalesce(admitted, '{}')) AND o <> ALL (refused)
           AND NOT EXISTS (SELECT FROM pg_catalog.unnest(items) p WHERE p.ord = ANY (placed) AND p.job_id = i.job_id);
        EXIT WHEN open IS NULL;
    END LOOP;

    RETURN QUERY
    SELECT a.job_id, a.status, a.created, a.retry_after, a.refusal, a.queue
      FROM (SELECT i.ord, i.job_id, 'enqueued' AS status, true AS created, NULL::interval AS retry_after, NULL AS refusal, i.queue
              FROM pg_catalog.unnest(items) AS i WHERE i.ord = ANY (done)
            UNION ALL
            SELECT i.ord, i.job_id, k.status, false,
                   CASE WHEN k.job_id IS NULL
                        THEN coalesce(limit_wait(i.job_type, i.user_id, i.limit_count, i.limit_window), '0 s') END,
                   CASE WHEN k.job_id IS NULL THEN 'rate_limited' ELSE k.refusal END, NULL
              FROM pg_catalog.unnest(items) AS i LEFT JOIN LATERAL known_job(i.job_id, i.digest) AS k ON i.ord <> ALL (refused)
             WHERE i.ord <> ALL (done)) AS a
     ORDER BY a.ord;
END
$$;

CREATE FUNCTION readable_job(id uuid) RETURNS job_logs LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
-- A row as far as it can be read: a column that a disk has damaged says so instead. For the one row
-- in a page that cannot be read.
DECLARE
    part text;
    one  jsonb;
    row  jsonb := '{}';
BEGIN
    FOR part IN SELECT a.attname FROM pg_attribute a
                 WHERE a.attrelid = 'job_logs'::regclass AND a.attnum > 0 AND NOT a.attisdropped LOOP
        BEGIN
            EXECUTE format('SELECT to_jsonb(j.%I) FROM job_logs j WHERE j.id = $1', part) INTO one USING readable_job.id;
        EXCEPTION WHEN OTHERS THEN
            one := to_jsonb('unreadable: ' || SQLERRM);
            IF part = 'history' THEN one := jsonb_build_array(jsonb_build_object('event', 'unreadable', 'error', one)); END IF;
        END;
        row := row || jsonb_build_object(part, one);
    END LOOP;
    RETURN jsonb_populate_record(NULL::job_logs, row);
END
$$;

REVOKE ALL ON job_dependencies FROM PUBLIC;
REVOKE ALL ON TYPE job_answer FROM PUBLIC;
REVOKE ALL ON FUNCTION dependency_failed(text, uuid[], boolean, text, interval, interval),
    dependency_probed(text, uuid, bigint, text, text, text, interval), dependency_works(text), claim_probe(text, interval, text[], text[]),
    job_rows(jsonb, timestamptz), offer_many(jsonb, text[]), readable_job(uuid), offer_group(jsonb, text[]) FROM PUBLIC;
