-- What a migrated database is: sql/migrations/ and sql/functions/ together, as pg_dump of Postgres
-- 18 says. For reading, and for comparing two releases; no program applies this file. Reasons stand
-- in the files that it is made from.
--
-- Remake it after a change there: python3 dev.py schema

CREATE TYPE job_change AS (
	job_id text,
	status text,
	changed boolean,
	message text
);

CREATE TYPE job_ticket AS (
	job_id text,
	status text,
	created boolean,
	retry_after interval
);

CREATE TYPE pgqueue_answer AS (
	job_id text,
	status text,
	created boolean,
	retry_after interval,
	refusal text,
	queue text
);

CREATE TYPE pgqueue_bulk_answer AS (
	ord integer,
	job_id text,
	status text,
	created boolean,
	retry_after interval,
	refusal text,
	job_type text,
	queue text
);

CREATE FUNCTION cancel_job(job_id text) RETURNS job_change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE job_logs j
       SET status = 'cancelled', lease = j.lease + 1, lease_until = NULL,
           processed_at = clock_timestamp()
     WHERE j.job_id = cancel_job.job_id AND j.status IN ('enqueued', 'failed', 'processing');
    IF FOUND THEN
        RETURN (cancel_job.job_id, 'cancelled', true, 'Job cancelled')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(cancel_job.job_id, 'waiting or running'::text);
END
$$;

CREATE TABLE job_logs (
    id uuid DEFAULT uuidv7() NOT NULL,
    job_id text NOT NULL,
    job_type text NOT NULL,
    user_id text NOT NULL,
    payload jsonb NOT NULL,
    payload_digest bytea NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    queue text NOT NULL,
    priority smallint DEFAULT 5 NOT NULL,
    max_attempts smallint NOT NULL,
    attempt_count integer DEFAULT 0 NOT NULL,
    run_after timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    lease bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone,
    lease_until timestamp with time zone,
    processed_at timestamp with time zone,
    dead_at timestamp with time zone,
    status text DEFAULT 'enqueued'::text NOT NULL,
    locked_by text,
    error text,
    stack_trace text,
    progress real,
    progress_note text,
    history jsonb,
    intent_at timestamp with time zone,
    receipt text,
    CONSTRAINT attempts_are_counted_from_0_to_max CHECK (((attempt_count >= 0) AND (attempt_count <= max_attempts))),
    CONSTRAINT ended_job_needs_processed_at_use_cancel_job CHECK (((status <> ALL (ARRAY['completed'::text, 'dlq'::text, 'cancelled'::text])) OR (processed_at IS NOT NULL))),
    CONSTRAINT history_is_an_array_kept_by_workers_and_replay_job CHECK ((jsonb_typeof(history) = 'array'::text)),
    CONSTRAINT intent_is_from_1970_to_9998_use_job_intend CHECK (((intent_at >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (intent_at < '9999-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT job_id_has_1_to_255_characters CHECK (((char_length(job_id) >= 1) AND (char_length(job_id) <= 255))),
    CONSTRAINT job_type_has_1_to_255_characters CHECK (((char_length(job_type) >= 1) AND (char_length(job_type) <= 255))),
    CONSTRAINT lease_is_counted_by_claims_use_cancel_job_to_end_one CHECK (((lease >= 0) AND (lease <= '4611686018427387904'::bigint))),
    CONSTRAINT live_job_has_no_processed_at_use_replay_job_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'dlq'::text, 'cancelled'::text])) OR (processed_at IS NULL))),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT only_workers_fill_dlq_leave_it_by_replay_job_or_delete_dead_job CHECK (((status = 'dlq'::text) = (dead_at IS NOT NULL))),
    CONSTRAINT only_workers_start_processing_use_cancel_job_to_end_it CHECK (((status = 'processing'::text) = (lease_until IS NOT NULL))),
    CONSTRAINT payload_has_at_most_1_mib_keep_large_data_elsewhere CHECK ((pg_column_size(payload) <= 1048576)),
    CONSTRAINT priority_is_0_to_9 CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT progress_is_0_to_1_use_job_progress CHECK (((progress >= (0)::real) AND (progress <= (1)::real))),
    CONSTRAINT queue_has_1_to_255_characters CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 255))),
    CONSTRAINT run_after_is_a_day_before_year_9999 CHECK (((run_after >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (run_after < '9999-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT status_is_one_of_the_six CHECK ((status = ANY (ARRAY['enqueued'::text, 'processing'::text, 'completed'::text, 'failed'::text, 'dlq'::text, 'cancelled'::text]))),
    CONSTRAINT times_are_from_1970_to_9998_use_replay_job_or_cancel_job CHECK (((LEAST(created_at, started_at, lease_until, processed_at, dead_at) >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (GREATEST(created_at, started_at, lease_until, processed_at, dead_at) < '9999-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT user_id_has_at_most_255_characters CHECK ((char_length(user_id) <= 255)),
    CONSTRAINT waiting_job_has_attempts_left_use_replay_job_if_dead CHECK (((status <> ALL (ARRAY['enqueued'::text, 'failed'::text])) OR (attempt_count < max_attempts)))
)
WITH (fillfactor='45', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE job_logs IS 'One row for each job: queue, log and rate limiter. See sql/migrations/0001_tables.sql.';

COMMENT ON COLUMN job_logs.payload_digest IS 'sha256 of type, user and the payload as the caller sent it, before defaults.';

COMMENT ON COLUMN job_logs.lease IS 'The fence: +1 at every claim, and when a running job is taken from its worker. Never reset.';

COMMENT ON COLUMN job_logs.started_at IS 'When the last attempt was claimed.';

COMMENT ON COLUMN job_logs.locked_by IS 'The worker of the last claim (job_workers.id); it holds the job while status is processing.';

COMMENT ON COLUMN job_logs.history IS 'Failed attempts, leases that ran out, and replays: the newest 20, newest last.';

COMMENT ON COLUMN job_logs.intent_at IS 'When an attempt declared an irreversible side effect whose outcome is not known.';

COMMENT ON COLUMN job_logs.receipt IS 'What the completed attempt has to show, such as the answer of a mail server.';

CREATE FUNCTION dead_jobs(job_type text DEFAULT NULL::text, user_id text DEFAULT NULL::text, error text DEFAULT NULL::text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, job_ids text[] DEFAULT NULL::text[]) RETURNS SETOF job_logs
    LANGUAGE sql STABLE
    AS $$
    SELECT j.* FROM job_logs j
     WHERE j.dead_at IS NOT NULL
       AND (dead_jobs.job_type IS NULL OR j.job_type = dead_jobs.job_type)
       AND (dead_jobs.user_id IS NULL OR j.user_id = dead_jobs.user_id)
       AND (dead_jobs.error IS NULL
            OR position(lower(dead_jobs.error) IN lower(coalesce(j.error, ''))) > 0)
       AND (dead_jobs.since IS NULL OR j.dead_at >= dead_jobs.since)
       AND (dead_jobs.until IS NULL OR j.dead_at < dead_jobs.until)
       AND (dead_jobs.job_ids IS NULL OR j.job_id = ANY (dead_jobs.job_ids))
$$;

CREATE FUNCTION delete_dead_job(job_id text) RETURNS job_change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE job_logs j SET status = 'cancelled', dead_at = NULL
     WHERE j.job_id = delete_dead_job.job_id AND j.status = 'dlq';
    IF FOUND THEN
        RETURN (delete_dead_job.job_id, 'cancelled', true, 'Job deleted')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(delete_dead_job.job_id, 'dlq'::text);
END
$$;

CREATE FUNCTION enqueue_job(job_type text, payload jsonb, job_id text DEFAULT NULL::text, user_id text DEFAULT NULL::text, queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, run_after timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer) RETURNS job_ticket
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    answer pgqueue_answer := pgqueue_try_enqueue(job_type, payload, job_id, user_id, queue,
                                                 priority, run_after, max_attempts, NULL::jsonb);
BEGIN
    IF answer.refusal = 'duplicate_payload' THEN
        RAISE unique_violation USING CONSTRAINT = 'unique_job_id', TABLE = 'job_logs',
            MESSAGE = pg_catalog.format('Job ID already used with another payload: %s',
                                        answer.job_id);
    END IF;
    RETURN (answer.job_id, answer.status, answer.created, answer.retry_after)::job_ticket;
END
$$;

CREATE FUNCTION job_uuid_at(moment timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT encode(
        int8send((floor(extract(epoch FROM moment) * 1000::numeric)::bigint << 16) | 28672::bigint)
        || decode('8000000000000000', 'hex'), 'hex')::uuid
$$;

CREATE FUNCTION pause_queue(queue text, paused boolean) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    INSERT INTO job_queues (queue, paused)
    SELECT pause_queue.queue, true WHERE pause_queue.paused ON CONFLICT (queue) DO NOTHING;
    DELETE FROM job_queues q WHERE q.queue = pause_queue.queue AND NOT pause_queue.paused;
$$;

CREATE TABLE job_types (
    job_type text NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    max_attempts smallint DEFAULT 5 NOT NULL,
    limit_count integer,
    limit_window interval,
    user_from text,
    backoff_base interval DEFAULT '00:00:02'::interval NOT NULL,
    backoff_cap interval DEFAULT '01:00:00'::interval NOT NULL,
    timeout interval DEFAULT '00:01:00'::interval NOT NULL,
    depends_on text,
    admin boolean DEFAULT false NOT NULL,
    published_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT durations_are_at_most_10_years CHECK (((GREATEST(limit_window, backoff_base, backoff_cap, timeout) <= '10 years'::interval) AND (LEAST(limit_window, backoff_base, backoff_cap, timeout) >= '00:00:00'::interval))),
    CONSTRAINT limit_is_positive CHECK (((limit_count >= 1) AND (limit_window > '00:00:00'::interval))),
    CONSTRAINT limit_needs_count_and_window CHECK (((limit_count IS NULL) = (limit_window IS NULL))),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT published_at_is_finite CHECK (isfinite(published_at)),
    CONSTRAINT type_and_queue_have_1_to_255_characters CHECK ((((char_length(job_type) >= 1) AND (char_length(job_type) <= 255)) AND ((char_length(queue) >= 1) AND (char_length(queue) <= 255))))
);

COMMENT ON TABLE job_types IS 'Limits and defaults of each job type, published from the @task declarations.';

COMMENT ON COLUMN job_types.user_from IS 'The member of the payload that names the user, where user_id is not given.';

CREATE FUNCTION pgqueue_admit(kind job_types, job_id text, owner text, payload jsonb, filled jsonb, digest bytea, queue text, priority integer, run_after timestamp with time zone, max_attempts integer) RETURNS pgqueue_answer
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    place  text := coalesce(pgqueue_admit.queue, kind.queue);
    moment timestamptz;
    wait   interval;
    answer pgqueue_answer;
BEGIN
    LOOP
        IF kind.limit_count IS NOT NULL THEN
            wait := pgqueue_limit_wait(kind.job_type, owner, kind.limit_count, kind.limit_window);
        END IF;
        IF wait IS NULL THEN
            moment := clock_timestamp();
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue,
                                  priority, run_after, max_attempts, created_at)
            VALUES (pgqueue_admit.job_id, kind.job_type, owner,
                    pgqueue_stored_payload(pgqueue_admit.payload, filled, kind.user_from), digest,
                    place, coalesce(pgqueue_admit.priority, 5),
                    coalesce(pgqueue_admit.run_after, moment),
                    coalesce(pgqueue_admit.max_attempts, kind.max_attempts), moment)
            ON CONFLICT (job_id) DO NOTHING;
            IF FOUND THEN
                -- After the insert, not before: retention may have turned a row into a tombstone
                -- while this statement waited for it.
                IF NOT EXISTS (SELECT FROM job_tombstones t
                                WHERE t.id_hash = pgqueue_id_hash(pgqueue_admit.job_id)) THEN
                    RETURN (pgqueue_admit.job_id, 'enqueued', true, NULL, NULL, place
                           )::pgqueue_answer;
                END IF;
                DELETE FROM job_logs j WHERE j.job_id = pgqueue_admit.job_id;
            END IF;
        END IF;
        SELECT * INTO answer FROM pgqueue_known_job(pgqueue_admit.job_id, digest);
        IF FOUND THEN RETURN answer; END IF;
        IF wait IS NOT NULL THEN
            RETURN (pgqueue_admit.job_id, NULL, false, wait, 'rate_limited', NULL)::pgqueue_answer;
        END IF;
        -- The row that was in the way is gone again: its transaction was rolled back.
    END LOOP;
END
$$;

CREATE FUNCTION pgqueue_claim_probe(worker text, lease interval, queues text[], dependencies text[]) RETURNS SETOF job_logs
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION pgqueue_dependency_failed(dependency text, jobs uuid[], down boolean, reason text, retry_after interval, succeeded_ago interval) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    was    job_dependencies;
    pause  interval := CASE WHEN down THEN interval '5 s' ELSE interval '1 s' END;
    fresh  uuid[];
    recent jsonb;
BEGIN
    INSERT INTO job_dependencies (dependency) VALUES (pgqueue_dependency_failed.dependency)
    ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM job_dependencies d
     WHERE d.dependency = pgqueue_dependency_failed.dependency FOR UPDATE;
    IF was.state <> 'closed' THEN RETURN was.state; END IF;
    -- An attempt that began before the breaker last closed says nothing about the dependency now.
    SELECT array_agg(n) INTO fresh FROM unnest(jobs) AS n
     WHERE NOT EXISTS (SELECT FROM job_logs j WHERE j.id = n AND j.started_at < was.closed_at
                          AND was.closed_at <= now());
    IF fresh IS NULL AND jobs <> '{}' THEN RETURN was.state; END IF;
    SELECT jsonb_object_agg(f.job, f.at) INTO recent
      FROM (SELECT o.key AS job, o.value AS at FROM jsonb_each_text(was.failures) AS o
             WHERE pgqueue_moment(o.value) > now() - least(interval '10 s', succeeded_ago)
             UNION SELECT n::text, to_jsonb(now()) #>> '{}' FROM unnest(fresh) AS n) AS f;
    IF NOT down AND (SELECT count(*) FROM jsonb_object_keys(recent)) < 5 THEN
        UPDATE job_dependencies d SET failures = recent WHERE d.dependency = was.dependency;
        RETURN 'closed';
    END IF;
    UPDATE job_dependencies d
       SET state = 'open', failures = '{}', reason = pgqueue_dependency_failed.reason,
           opened_at = now(), changed_at = now(), probe_pause = pause,
           probe_at = now() + greatest(pause, retry_after)
     WHERE d.dependency = was.dependency;
    RETURN 'opened';
END
$$;

CREATE FUNCTION pgqueue_dependency_probed(dependency text, probe uuid, lease bigint, worker text, verdict text, reason text, retry_after interval) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    now_in text;
BEGIN
    UPDATE job_dependencies d
       SET state = CASE verdict WHEN 'alive' THEN 'closed' ELSE 'open' END, changed_at = now(),
           probe_id = NULL, probe_lease = NULL, probe_worker = NULL, failures = '{}',
           opened_at = CASE verdict WHEN 'alive' THEN NULL ELSE d.opened_at END,
           closed_at = CASE verdict WHEN 'alive' THEN now() ELSE d.closed_at END,
           reason = CASE verdict WHEN 'down' THEN pgqueue_dependency_probed.reason
                                 ELSE d.reason END,
           probe_pause = CASE verdict WHEN 'down' THEN least(d.probe_pause * 2, interval '15 s')
                                      ELSE d.probe_pause END,
           probe_at = CASE verdict
               WHEN 'down' THEN now() + greatest(least(d.probe_pause * 2, interval '15 s'),
                                                 retry_after)
               WHEN 'unclear' THEN now() END
     WHERE d.dependency = pgqueue_dependency_probed.dependency AND d.state = 'half_open'
       AND d.probe_id = probe AND d.probe_lease = pgqueue_dependency_probed.lease
       AND d.probe_worker = worker
    RETURNING d.state INTO now_in;
    RETURN coalesce(now_in, (SELECT d.state FROM job_dependencies d
                              WHERE d.dependency = pgqueue_dependency_probed.dependency));
END
$$;

CREATE FUNCTION pgqueue_dependency_works(dependency text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'public', 'pg_temp'
    AS $$
    UPDATE job_dependencies d SET failures = '{}'
     WHERE d.dependency = pgqueue_dependency_works.dependency AND d.state = 'closed'
       AND d.failures <> '{}'
$$;

CREATE FUNCTION pgqueue_digest(job_type text, user_id text, payload jsonb) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $_$
DECLARE
    said text := payload;
BEGIN
    IF said ~ $re$[.][0-9]*0([],}]|$)$re$ THEN
        said := pg_catalog.regexp_replace(
            said, $re$("(?:[^"\\]|\\.)*")|(?:[.]0+|([.][0-9]*[1-9])0+)(?=[],}]|$)$re$,
            $re$\1\2$re$, 'g');
    END IF;
    RETURN pg_catalog.sha256(pg_catalog.convert_to(
        job_type || pg_catalog.chr(10) || coalesce(user_id, '') || pg_catalog.chr(10) || said,
        'UTF8'));
END
$_$;

CREATE FUNCTION pgqueue_enqueue_group(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgqueue_enqueue_many(jobs);
END
$$;

CREATE FUNCTION pgqueue_enqueue_many(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET work_mem TO '64MB'
    AS $$
DECLARE
    kinds  job_types[];
    at     timestamptz := clock_timestamp();
    late   jsonb;
    mine   jsonb;
    item   record;
    answer pgqueue_answer;
BEGIN
    SELECT pg_catalog.array_agg(pgqueue_job_type(d.job_type)) INTO kinds
      FROM (SELECT DISTINCT i.job_type
              FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_type text) ORDER BY 1) AS d;
    RETURN QUERY SELECT NULL::integer, NULL, NULL, NULL::boolean, NULL::interval, NULL, k.job_type,
                        k.queue
                   FROM pg_catalog.unnest(kinds) AS k;
    IF EXISTS (SELECT FROM pg_catalog.unnest(kinds) AS k WHERE k.limit_count IS NOT NULL) THEN
        late := pgqueue_late_jobs(jobs, at);
        at := clock_timestamp();
    END IF;
    BEGIN
        -- To look for a conflict at every row costs a tenth of the whole, and there is hardly ever
        -- one.
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority,
                              run_after, max_attempts, created_at)
        SELECT r.* FROM pgqueue_rows(jobs, late, at) AS r;
    EXCEPTION WHEN unique_violation THEN
        WITH inserted AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue,
                                  priority, run_after, max_attempts, created_at)
            SELECT r.* FROM pgqueue_rows(jobs, late, at) AS r ON CONFLICT (job_id) DO NOTHING
            RETURNING job_id
        )
        SELECT coalesce(pg_catalog.jsonb_object_agg(i.job_id, true), '{}') INTO mine
          FROM inserted i;
    END;
    IF mine IS NULL THEN
        IF late IS NULL AND (NOT EXISTS (SELECT FROM job_tombstones) OR NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text)
                 JOIN job_tombstones t ON t.id_hash = pgqueue_id_hash(i.job_id))) THEN
            RETURN;
        END IF;
        SELECT coalesce(pg_catalog.jsonb_object_agg(r.job_id, true), '{}') INTO mine
          FROM pgqueue_rows(jobs, late, at) AS r;
    END IF;
    -- Some jobs are late, or their ids were known, perhaps by a tombstone. (Sets are objects: a
    -- plan that does not know how long an array is would join it row by row.) After the insert, not
    -- before: retention may have turned a row into a tombstone while this statement waited for it.
    WITH undone AS (
        DELETE FROM job_logs j
         USING pg_catalog.jsonb_object_keys(mine) AS m(job_id), job_tombstones t
         WHERE j.job_id = m.job_id AND t.id_hash = pgqueue_id_hash(m.job_id)
        RETURNING j.job_id
    )
    SELECT coalesce(mine, '{}') - coalesce(pg_catalog.array_agg(u.job_id), '{}') INTO mine
      FROM undone u;
    FOR item IN
        SELECT i.*, k.job_id IS NOT NULL AS known, k.status, k.refusal
          FROM (SELECT n.*, pgqueue_digest(n.job_type, n.owner, n.payload) AS digest,
                       row_number() OVER (PARTITION BY n.job_id ORDER BY n.ord) AS nth
                  FROM pgqueue_items(jobs, at) AS n) AS i
          LEFT JOIN LATERAL pgqueue_known_job(i.job_id, i.digest) AS k ON true
         WHERE NOT (i.nth = 1 AND mine ? i.job_id)
         ORDER BY i.ord
    LOOP
        IF item.known THEN
            RETURN NEXT (item.ord, item.job_id, item.status, false, NULL, item.refusal, NULL, NULL
                        )::pgqueue_bulk_answer;
            CONTINUE;
        END IF;
        answer := pgqueue_admit(
            (SELECT k FROM pg_catalog.unnest(kinds) AS k WHERE k.job_type = item.job_type),
            item.job_id, item.owner, item.payload, item.filled, item.digest, item.queue,
            item.priority, item.run_after, item.max_attempts);
        IF NOT answer.created THEN
            RETURN NEXT (item.ord, answer.job_id, answer.status, false, answer.retry_after,
                         answer.refusal, NULL, NULL)::pgqueue_bulk_answer;
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION pgqueue_fill_defaults() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
-- For a bare INSERT: fills in what enqueue_job() fills in, for a role with any rights and
-- any search path. Rows of enqueue_job() bring all of it and skip this.
BEGIN
    IF NEW.queue IS NULL OR NEW.max_attempts IS NULL THEN
        SELECT coalesce(NEW.queue, t.queue), coalesce(NEW.max_attempts, t.max_attempts)
          INTO NEW.queue, NEW.max_attempts
          FROM (VALUES (1)) AS one LEFT JOIN job_types t ON t.job_type = NEW.job_type;
        NEW.queue := coalesce(NEW.queue, 'default');
        NEW.max_attempts := coalesce(NEW.max_attempts, 5);
    END IF;
    NEW.payload_digest := coalesce(NEW.payload_digest,
                                   pgqueue_digest(NEW.job_type, NEW.user_id, NEW.payload));
    RETURN NEW;
END
$$;

CREATE FUNCTION pgqueue_history(history jsonb, entry jsonb) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $_$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(history) IS DISTINCT FROM 'array' THEN '[]'
                WHEN pg_catalog.jsonb_array_length(history) < 20 THEN history
                ELSE pg_catalog.jsonb_path_query_array(history, '$[last - 18 to last]') END
           || pg_catalog.jsonb_build_array(entry)
$_$;

CREATE FUNCTION pgqueue_id_hash(job_id text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT substring(pg_catalog.sha256(pg_catalog.convert_to(job_id, 'UTF8')) FOR 16)
$$;

CREATE FUNCTION pgqueue_is_admin() RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT pg_catalog.has_function_privilege(
        CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user
             ELSE pg_catalog.current_setting('role')::name END,
        'pgqueue_is_admin()', 'EXECUTE')
$$;

CREATE FUNCTION pgqueue_items(jobs jsonb, at timestamp with time zone) RETURNS TABLE(ord integer, job_id text, job_type text, owner text, payload jsonb, filled jsonb, queue text, priority integer, run_after timestamp with time zone, max_attempts integer, limit_count integer, limit_window interval, user_from text)
    LANGUAGE sql STABLE
    AS $$
    SELECT i.ord::integer, i.job_id, i.job_type,
           -- pgqueue_owner() has nothing to refuse where users are neither named nor counted.
           CASE WHEN t.user_from IS NULL AND t.limit_count IS NULL
                THEN coalesce(i.user_id, 'system')
                ELSE pgqueue_owner(t, i.payload, i.user_id) END,
           coalesce(i.payload, 'null'), i.filled, coalesce(i.queue, t.queue),
           coalesce(i.priority, 5),
           coalesce(i.run_after, at + pg_catalog.make_interval(
               secs => coalesce(i.delay, (i.ord - pg_catalog.jsonb_array_length(jobs))::float8
                                         / 1000000::float8))),
           coalesce(i.max_attempts, t.max_attempts::integer), t.limit_count, t.limit_window,
           t.user_from
      FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (
               job_id text, job_type text, user_id text, payload jsonb, filled jsonb, queue text,
               priority integer, run_after timestamptz, delay float8, max_attempts integer))
           WITH ORDINALITY AS i(job_id, job_type, user_id, payload, filled, queue, priority,
                                run_after, delay, max_attempts, ord)
      JOIN job_types t ON t.job_type = i.job_type
$$;

CREATE FUNCTION pgqueue_job_type(job_type text) RETURNS job_types
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    kind job_types;
BEGIN
    SELECT * INTO kind FROM job_types t WHERE t.job_type = pgqueue_job_type.job_type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown job type %', pgqueue_job_type.job_type
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Job types are published by "pgqueue migrate" and by every worker '
                         'that has a task for them.';
    END IF;
    IF kind.admin AND NOT pgqueue_is_admin() THEN
        RAISE EXCEPTION 'job type % is for administrators', kind.job_type
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Connect as a member of pgqueue_operator: see sql/roles.sql.';
    END IF;
    IF kind.limit_count IS NOT NULL
       AND pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'job type % has a limit: enqueue it in a READ COMMITTED transaction',
            kind.job_type USING ERRCODE = 'invalid_transaction_state';
    END IF;
    RETURN kind;
END
$$;

CREATE FUNCTION pgqueue_keep_admin() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
-- A role that may not enqueue for administrators cannot open such a type by publishing it: the type
-- stays closed, and the rest of the declaration is written.
BEGIN
    NEW.admin := NOT pgqueue_is_admin();
    RETURN NEW;
END
$$;

CREATE FUNCTION pgqueue_known_job(job_id text, digest bytea) RETURNS SETOF pgqueue_answer
    LANGUAGE sql STABLE
    AS $$
    SELECT pgqueue_known_job.job_id,
           CASE WHEN k.digest = pgqueue_known_job.digest THEN k.status END, false, NULL::interval,
           CASE WHEN k.digest <> pgqueue_known_job.digest THEN 'duplicate_payload' END, NULL::text
      FROM (SELECT j.status, j.payload_digest AS digest
              FROM job_logs j WHERE j.job_id = pgqueue_known_job.job_id
            UNION ALL
            SELECT t.outcome, t.digest
              FROM job_tombstones t WHERE t.id_hash = pgqueue_id_hash(pgqueue_known_job.job_id)
           ) AS k
     LIMIT 1
$$;

CREATE FUNCTION pgqueue_late_jobs(jobs jsonb, at timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
DECLARE
    bucket bigint;
    late   jsonb;
BEGIN
    FOR bucket IN SELECT DISTINCT pgqueue_limit_lock(i.job_type, i.owner)
                    FROM pgqueue_items(jobs, at) AS i
                   WHERE i.limit_count IS NOT NULL ORDER BY 1 LOOP
        PERFORM pg_catalog.pg_advisory_xact_lock(bucket);
    END LOOP;
    -- In a statement of its own: it sees what was committed before the locks.
    WITH late_ones AS (
        SELECT n.job_id, pg_catalog.min(n.ord) AS ord
          FROM (SELECT i.ord, i.job_id, i.job_type, i.owner, i.limit_count, i.limit_window,
                       row_number() OVER (PARTITION BY i.job_type, i.owner ORDER BY i.ord) AS nth
                  FROM pgqueue_items(jobs, at) AS i WHERE i.limit_count IS NOT NULL) AS n
         WHERE n.nth > n.limit_count
            OR n.nth + (SELECT count(*) FROM (
                   SELECT FROM job_logs j
                    WHERE j.user_id = n.owner AND j.job_type = n.job_type
                      AND j.created_at > clock_timestamp() - pgqueue_span(n.limit_window)
                    LIMIT n.limit_count) AS used) > n.limit_count
         GROUP BY n.job_id
    )
    -- A job with the id of a late one before it is late too: if that one is refused, it is new.
    SELECT pg_catalog.jsonb_object_agg(i.ord, true) INTO late
      FROM late_ones l JOIN pgqueue_items(jobs, at) AS i ON i.job_id = l.job_id AND i.ord >= l.ord;
    RETURN late;
END
$$;

CREATE FUNCTION pgqueue_limit_lock(job_type text, user_id text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT (pg_catalog.hashtext('pgqueue ' || job_type)::bigint << 32)
           | (pg_catalog.hashtext(user_id) & 1023)::bigint
$$;

CREATE FUNCTION pgqueue_limit_wait(job_type text, user_id text, limit_count integer, limit_window interval) RETURNS interval
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN (
        SELECT j.created_at + pgqueue_span(pgqueue_limit_wait.limit_window) - clock_timestamp()
          FROM job_logs j
         WHERE j.user_id = pgqueue_limit_wait.user_id AND j.job_type = pgqueue_limit_wait.job_type
           AND j.created_at > clock_timestamp() - pgqueue_span(pgqueue_limit_wait.limit_window)
         ORDER BY j.created_at DESC
        OFFSET pgqueue_limit_wait.limit_count - 1 LIMIT 1);
END
$$;

CREATE FUNCTION pgqueue_moment(text) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $_$
BEGIN
    RETURN CASE WHEN pg_catalog.isfinite($1::timestamptz) THEN $1::timestamptz END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$_$;

CREATE FUNCTION pgqueue_owner(kind job_types, payload jsonb, user_id text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    AS $$
DECLARE
    named text := payload ->> kind.user_from;
BEGIN
    IF user_id IS NULL AND named IS NULL AND kind.limit_count IS NOT NULL THEN
        RAISE EXCEPTION 'job type % needs a user_id: it has a limit per user', kind.job_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF kind.user_from IS NOT NULL AND user_id IS DISTINCT FROM named AND user_id IS NOT NULL THEN
        RAISE EXCEPTION 'user_id is not the % of the payload', kind.user_from
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN coalesce(user_id, named, 'system');
END
$$;

CREATE FUNCTION pgqueue_readable_job(id uuid) RETURNS job_logs
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $_$
DECLARE
    part text;
    one  jsonb;
    row  jsonb := '{}';
BEGIN
    FOR part IN SELECT a.attname FROM pg_attribute a
                 WHERE a.attrelid = 'job_logs'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        BEGIN
            EXECUTE format('SELECT to_jsonb(j.%I) FROM job_logs j WHERE j.id = $1', part)
               INTO one USING pgqueue_readable_job.id;
        EXCEPTION WHEN OTHERS THEN
            one := to_jsonb('unreadable: ' || SQLERRM);
            IF part = 'history' THEN
                one := jsonb_build_array(jsonb_build_object('event', 'unreadable', 'error', one));
            END IF;
        END;
        row := row || jsonb_build_object(part, one);
    END LOOP;
    RETURN jsonb_populate_record(NULL::job_logs, row);
END
$_$;

CREATE FUNCTION pgqueue_rows(jobs jsonb, late jsonb, at timestamp with time zone) RETURNS TABLE(job_id text, job_type text, user_id text, payload jsonb, payload_digest bytea, queue text, priority smallint, run_after timestamp with time zone, max_attempts smallint, created_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
    SELECT i.job_id, i.job_type, i.owner, pgqueue_stored_payload(i.payload, i.filled, i.user_from),
           pgqueue_digest(i.job_type, i.owner, i.payload), i.queue, i.priority::smallint,
           i.run_after, i.max_attempts::smallint, at
      FROM pgqueue_items(jobs, at) AS i
     WHERE late IS NULL OR NOT late ? i.ord::text
     ORDER BY i.job_id COLLATE "C", i.ord
$$;

CREATE FUNCTION pgqueue_span(span interval) RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT pg_catalog.make_interval(secs => extract(epoch FROM span)::float8)
$$;

CREATE FUNCTION pgqueue_stored_payload(payload jsonb, filled jsonb, user_from text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(payload) = 'object'
                     AND pg_catalog.jsonb_typeof(filled) = 'object'
                THEN payload || CASE WHEN user_from IS NULL THEN filled ELSE filled - user_from END
                ELSE payload END
$$;

CREATE FUNCTION pgqueue_time(moment timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT pg_catalog.to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

CREATE FUNCTION pgqueue_try_enqueue(job_type text, payload jsonb, job_id text DEFAULT NULL::text, user_id text DEFAULT NULL::text, queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, run_after timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer, filled jsonb DEFAULT NULL::jsonb) RETURNS pgqueue_answer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    kind   job_types := pgqueue_job_type(job_type);
    key    text := coalesce(job_id, job_type || '-' || pgqueue_uuid()::text);
    owner  text;
    digest bytea;
    answer pgqueue_answer;
BEGIN
    IF payload IS NULL THEN
        RAISE EXCEPTION 'a job needs a payload' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    owner := pgqueue_owner(kind, payload, user_id);
    digest := pgqueue_digest(job_type, owner, payload);
    IF kind.limit_count IS NOT NULL THEN
        -- A job that is known already is answered without waiting for the lock.
        SELECT * INTO answer FROM pgqueue_known_job(key, digest);
        IF FOUND THEN RETURN answer; END IF;
        PERFORM pg_catalog.pg_advisory_xact_lock(pgqueue_limit_lock(job_type, owner));
    END IF;
    RETURN pgqueue_admit(kind, key, owner, payload, filled, digest, queue, priority, run_after,
                         max_attempts);
END
$$;

CREATE FUNCTION pgqueue_unchanged_job(job_id text, expected text) RETURNS job_change
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        (SELECT (j.job_id, j.status, false,
                 pg_catalog.format('Job is %s, not %s', j.status, pgqueue_unchanged_job.expected)
                )::job_change
           FROM job_logs j WHERE j.job_id = pgqueue_unchanged_job.job_id),
        (pgqueue_unchanged_job.job_id, NULL, false, 'Job not found')::job_change)
$$;

CREATE FUNCTION pgqueue_uuid() RETURNS uuid
    LANGUAGE plpgsql PARALLEL SAFE
    AS $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 180000 THEN
        RETURN pg_catalog.uuidv7();
    END IF;
    RETURN (overlay(pg_catalog.lpad(pg_catalog.to_hex(
                (extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint
                * 512 / 125), 15, '0') PLACING '7' FROM 13 FOR 0)
            || substring(pg_catalog.gen_random_uuid()::text FROM 20))::uuid;
END
$$;

CREATE FUNCTION replay_job(job_id text, payload jsonb DEFAULT NULL::jsonb) RETURNS job_change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    IF replay_jobs(ARRAY(SELECT j.id FROM job_logs j WHERE j.job_id = replay_job.job_id),
                   interval '0 s', replay_job.payload) > 0 THEN
        RETURN (replay_job.job_id, 'enqueued', true, 'Job enqueued again')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(replay_job.job_id, 'dlq or cancelled'::text);
END
$$;

CREATE FUNCTION replay_jobs(ids uuid[], spacing interval DEFAULT '00:00:00'::interval, payload jsonb DEFAULT NULL::jsonb) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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
       SET status = 'enqueued', attempt_count = 0,
           run_after = clock_timestamp() + spacing * p.nth::float8, processed_at = NULL,
           dead_at = NULL, error = NULL, stack_trace = NULL, progress = NULL, progress_note = NULL,
           -- Whether an earlier attempt had its effect: the operator who replays has decided.
           intent_at = NULL,
           payload = coalesce(replay_jobs.payload, j.payload),
           history = pgqueue_history(j.history,
               pg_catalog.jsonb_build_object('event', 'replayed', 'at', pgqueue_time(now()),
                                             'was', j.status, 'error', j.error)
               || CASE WHEN replay_jobs.payload IS NULL THEN '{}'
                       ELSE pg_catalog.jsonb_build_object('payload', j.payload) END)
      FROM placed p WHERE j.id = p.id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END
$$;

CREATE FUNCTION ring_doorbell(queues text[], jobs integer DEFAULT 1) RETURNS integer
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE TABLE job_dependencies (
    dependency text NOT NULL,
    state text DEFAULT 'closed'::text NOT NULL,
    failures jsonb DEFAULT '{}'::jsonb NOT NULL,
    reason text,
    opened_at timestamp with time zone,
    closed_at timestamp with time zone,
    probe_at timestamp with time zone,
    probe_pause interval,
    probe_id uuid,
    probe_lease bigint,
    probe_worker text,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT failures_are_an_object CHECK ((jsonb_typeof(failures) = 'object'::text)),
    CONSTRAINT open_dependency_has_a_time_for_its_probe CHECK ((((state = 'closed'::text) = (opened_at IS NULL)) AND ((state = 'closed'::text) = (probe_at IS NULL)))),
    CONSTRAINT probe_goes_with_half_open CHECK (((state = 'half_open'::text) = (probe_id IS NOT NULL))),
    CONSTRAINT probe_pause_is_at_most_a_day CHECK (((probe_pause >= '00:00:00'::interval) AND (probe_pause <= '1 day'::interval))),
    CONSTRAINT state_is_closed_open_or_half_open CHECK ((state = ANY (ARRAY['closed'::text, 'open'::text, 'half_open'::text]))),
    CONSTRAINT times_are_from_1970_to_9998 CHECK (((LEAST(opened_at, closed_at, probe_at, changed_at) >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (GREATEST(opened_at, closed_at, probe_at, changed_at) < '9999-01-01 00:00:00+00'::timestamp with time zone)))
)
WITH (fillfactor='20');

COMMENT ON TABLE job_dependencies IS 'What jobs depend on, and whether it works. No row: no job has failed on it.';

COMMENT ON COLUMN job_dependencies.failures IS 'While closed: jobs that failed on it since one last succeeded (row id -> when).';

COMMENT ON COLUMN job_dependencies.closed_at IS 'When it last closed: failures of attempts that began before do not count.';

COMMENT ON COLUMN job_dependencies.probe_at IS 'When the next probe may start.';

CREATE TABLE job_functions (
    name text NOT NULL,
    checksum text NOT NULL,
    release text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE job_functions IS 'Which version of each file of sql/functions/ was applied last.';

COMMENT ON COLUMN job_functions.release IS 'The release of pgqueue that applied it: an older one does not replace it.';

CREATE TABLE job_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    min_release integer DEFAULT 1 NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE job_queues (
    queue text NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT changed_at_is_finite_use_pause_queue CHECK (isfinite(changed_at))
);

COMMENT ON TABLE job_queues IS 'Queues that an operator has paused. A queue without a row runs.';

CREATE TABLE job_tombstones (
    id_hash bytea NOT NULL,
    digest bytea NOT NULL,
    outcome text NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    CONSTRAINT ended_at_is_finite CHECK (isfinite(ended_at)),
    CONSTRAINT outcome_is_how_a_job_ends CHECK ((outcome = ANY (ARRAY['completed'::text, 'dlq'::text, 'cancelled'::text])))
);

COMMENT ON TABLE job_tombstones IS 'What is kept of a job whose row was removed: its id (hashed), payload digest and outcome.';

COMMENT ON COLUMN job_tombstones.ended_at IS 'When the row was removed: from then on the id is known by the tombstone alone.';

CREATE TABLE job_workers (
    id text NOT NULL,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    release text NOT NULL,
    queues jsonb DEFAULT '{}'::jsonb NOT NULL,
    types jsonb DEFAULT '{}'::jsonb NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    asleep boolean DEFAULT false NOT NULL,
    lease interval,
    CONSTRAINT kind_is_worker_or_api CHECK ((kind = ANY (ARRAY['worker'::text, 'api'::text]))),
    CONSTRAINT lease_is_at_most_a_day CHECK (((lease >= '00:00:00'::interval) AND (lease <= '1 day'::interval))),
    CONSTRAINT queues_types_and_detail_are_objects CHECK (((jsonb_typeof(queues) = 'object'::text) AND (jsonb_typeof(types) = 'object'::text) AND (jsonb_typeof(detail) = 'object'::text))),
    CONSTRAINT times_are_from_1970_to_9998 CHECK (((LEAST(started_at, seen_at) >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (GREATEST(started_at, seen_at) < '9999-01-01 00:00:00+00'::timestamp with time zone)))
)
WITH (fillfactor='20');

COMMENT ON TABLE job_workers IS 'The processes that are alive; seen_at is their heartbeat.';

COMMENT ON COLUMN job_workers.types IS 'Job type -> hash of the declaration that this process has.';

COMMENT ON COLUMN job_workers.asleep IS 'Waits for the doorbell: a client that enqueues rings it and clears the flag.';

COMMENT ON COLUMN job_workers.lease IS 'How long its claims hold. One that ends later was made before the clock was set back.';

ALTER TABLE ONLY job_dependencies
    ADD CONSTRAINT job_dependencies_pkey PRIMARY KEY (dependency);

ALTER TABLE ONLY job_functions
    ADD CONSTRAINT job_functions_pkey PRIMARY KEY (name);

ALTER TABLE ONLY job_logs
    ADD CONSTRAINT job_logs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY job_migrations
    ADD CONSTRAINT job_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY job_queues
    ADD CONSTRAINT job_queues_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY job_tombstones
    ADD CONSTRAINT job_tombstones_pkey PRIMARY KEY (id_hash);

ALTER TABLE ONLY job_types
    ADD CONSTRAINT job_types_pkey PRIMARY KEY (job_type);

ALTER TABLE ONLY job_workers
    ADD CONSTRAINT job_workers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY job_logs
    ADD CONSTRAINT unique_job_id UNIQUE (job_id);

CREATE INDEX job_logs_claim ON job_logs USING btree (queue, priority, run_after, id) WHERE (processed_at IS NULL);

CREATE INDEX job_logs_dead ON job_logs USING btree (dead_at, id) WHERE (dead_at IS NOT NULL);

CREATE INDEX job_logs_user ON job_logs USING btree (user_id, job_type, created_at);

CREATE INDEX job_tombstones_ended ON job_tombstones USING brin (ended_at) WITH (pages_per_range='16');

CREATE TRIGGER pgqueue_fill_defaults BEFORE INSERT ON job_logs FOR EACH ROW WHEN (((new.payload_digest IS NULL) OR (new.queue IS NULL) OR (new.max_attempts IS NULL))) EXECUTE FUNCTION pgqueue_fill_defaults();

CREATE TRIGGER pgqueue_keep_admin BEFORE UPDATE ON job_types FOR EACH ROW WHEN ((old.admin AND (NOT new.admin))) EXECUTE FUNCTION pgqueue_keep_admin();

REVOKE ALL ON TYPE job_change FROM PUBLIC;

REVOKE ALL ON TYPE job_ticket FROM PUBLIC;

REVOKE ALL ON TYPE pgqueue_answer FROM PUBLIC;

REVOKE ALL ON TYPE pgqueue_bulk_answer FROM PUBLIC;

REVOKE ALL ON FUNCTION cancel_job(job_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION dead_jobs(job_type text, user_id text, error text, since timestamp with time zone, until timestamp with time zone, job_ids text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION delete_dead_job(job_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION enqueue_job(job_type text, payload jsonb, job_id text, user_id text, queue text, priority integer, run_after timestamp with time zone, max_attempts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION job_uuid_at(moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pause_queue(queue text, paused boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_admit(kind job_types, job_id text, owner text, payload jsonb, filled jsonb, digest bytea, queue text, priority integer, run_after timestamp with time zone, max_attempts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_claim_probe(worker text, lease interval, queues text[], dependencies text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_dependency_failed(dependency text, jobs uuid[], down boolean, reason text, retry_after interval, succeeded_ago interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_dependency_probed(dependency text, probe uuid, lease bigint, worker text, verdict text, reason text, retry_after interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_dependency_works(dependency text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_digest(job_type text, user_id text, payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_enqueue_group(jobs jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_enqueue_many(jobs jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_fill_defaults() FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_history(history jsonb, entry jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_id_hash(job_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_is_admin() FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_items(jobs jsonb, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_job_type(job_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_keep_admin() FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_known_job(job_id text, digest bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_late_jobs(jobs jsonb, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_limit_lock(job_type text, user_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_limit_wait(job_type text, user_id text, limit_count integer, limit_window interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_moment(text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_owner(kind job_types, payload jsonb, user_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_readable_job(id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_rows(jobs jsonb, late jsonb, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_span(span interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_stored_payload(payload jsonb, filled jsonb, user_from text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_time(moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_try_enqueue(job_type text, payload jsonb, job_id text, user_id text, queue text, priority integer, run_after timestamp with time zone, max_attempts integer, filled jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_unchanged_job(job_id text, expected text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pgqueue_uuid() FROM PUBLIC;

REVOKE ALL ON FUNCTION replay_job(job_id text, payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION replay_jobs(ids uuid[], spacing interval, payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION ring_doorbell(queues text[], jobs integer) FROM PUBLIC;
