-- The life of a row
--
--   enqueue_job()/INSERT        a worker's claim          the handler returns
--         |                          |                           |
--         v                          v                           v
--     enqueued ----------------> processing ----------------> completed
--                                 |  ^   |
--             an attempt failed   |  |   |  discarded, or no attempts left, or 24 h in processing
--                                 v  |   v
--                               failed   dlq ----- replay_job() -----> enqueued (attempts from 0)
--
--     enqueued, failed, processing --- cancel_job() ---> cancelled --- replay_job() ---> enqueued
--
-- Live rows (enqueued, failed, processing) have processed_at null; ended rows (completed, dlq,
-- cancelled) have it set. The claim index hangs on that column and not on status: a claim changes
-- status, lease and clock columns only, none of which is in any index, so it is a heap-only update
-- inside the half-empty page that fillfactor 50 leaves. For the same reason the columns that change
-- stand behind those that do not: WAL carries only the bytes between the first and the last change.
--
-- lease is the fence. It grows by one at every claim, and whenever somebody takes a running job
-- from its worker (cancel, 24-hour rule, no attempts left); it never goes back. Every write of an
-- attempt says which lease it holds; a write that meets no row has lost it.
--
-- Nothing here needs an extension. Postgres 15 to 18.

-- Who may do what: nothing here is for PUBLIC, each file takes back what a database gives by
-- default, and sql/roles.sql grants it.
--
-- A function that runs with its owner's rights must not run what another role made. Its search_path
-- is the server's own schema, ours, and pg_temp last. That is not enough where others may create
-- things in our schema: of two operators or functions the one whose types fit better is taken,
-- whoever made it. So in these functions each operator has operands of exactly the types that the
-- server's own has, a call of ours has exactly its argument types and all of its arguments, and a
-- call of the server's with arguments names pg_catalog. tests/schema/test_definers.py tries it.

CREATE FUNCTION job_uuid_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- The smallest id that a row made at that moment can have: a creation time becomes a range of
    -- the primary key.
    SELECT encode(int8send((floor(extract(epoch FROM moment) * 1000::numeric)::bigint << 16) | 28672::bigint)
                  || decode('8000000000000000', 'hex'), 'hex')::uuid
$$;

CREATE FUNCTION job_digest(job_type text, user_id text, payload jsonb) RETURNS bytea LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
-- What "the same job again" means: equal type, user and payload as the caller sent it. jsonb has
-- one spelling per value, but for the zeros at the end of a fraction: 1.0 is 1. Strings are read
-- past as a whole, so that what looks like a number in them stays.
DECLARE
    said text := payload;
BEGIN
    IF said ~ $re$[.][0-9]*0([],}]|$)$re$ THEN
        said := pg_catalog.regexp_replace(said, $re$("(?:[^"\\]|\\.)*")|(?:[.]0+|([.][0-9]*[1-9])0+)(?=[],}]|$)$re$, $re$\1\2$re$, 'g');
    END IF;
    RETURN pg_catalog.sha256(pg_catalog.convert_to(
        job_type || pg_catalog.chr(10) || coalesce(user_id, '') || pg_catalog.chr(10) || said, 'UTF8'));
END
$$;

CREATE TABLE job_logs (
    id              uuid        NOT NULL,
    job_id          text        NOT NULL,
    job_type        text        NOT NULL,
    user_id         text        NOT NULL,
    payload         jsonb       NOT NULL,
    payload_digest  bytea       NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    queue           text        NOT NULL,
    priority        smallint    NOT NULL DEFAULT 5,
    max_attempts    smallint    NOT NULL,
    attempt_count   integer     NOT NULL DEFAULT 0,
    run_after       timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease           bigint      NOT NULL DEFAULT 0,
    started_at      timestamptz,
    lease_until     timestamptz,
    processed_at    timestamptz,
    dead_at         timestamptz,
    status          text        NOT NULL DEFAULT 'enqueued',
    locked_by       text,
    error           text,
    stack_trace     text,
    progress        real,
    progress_note   text,
    history         jsonb,

    CONSTRAINT job_logs_pkey PRIMARY KEY (id),
    CONSTRAINT unique_job_id UNIQUE (job_id),
    CONSTRAINT job_id_has_1_to_255_characters CHECK (char_length(job_id) BETWEEN 1 AND 255),
    CONSTRAINT job_type_has_1_to_255_characters CHECK (char_length(job_type) BETWEEN 1 AND 255),
    CONSTRAINT user_id_has_at_most_255_characters CHECK (char_length(user_id) <= 255),
    CONSTRAINT queue_has_1_to_255_characters CHECK (char_length(queue) BETWEEN 1 AND 255),
    CONSTRAINT status_is_one_of_the_six
        CHECK (status IN ('enqueued', 'processing', 'completed', 'failed', 'dlq', 'cancelled')),
    CONSTRAINT ended_job_needs_processed_at_use_cancel_job
        CHECK (status NOT IN ('completed', 'dlq', 'cancelled') OR processed_at IS NOT NULL),
    CONSTRAINT live_job_has_no_processed_at_use_replay_job
        CHECK (status IN ('completed', 'dlq', 'cancelled') OR processed_at IS NULL),
    CONSTRAINT dead_at_goes_with_dlq_use_replay_job CHECK ((status = 'dlq') = (dead_at IS NOT NULL)),
    CONSTRAINT lease_goes_with_processing_use_cancel_job CHECK ((status = 'processing') = (lease_until IS NOT NULL)),
    CONSTRAINT waiting_job_has_attempts_left_use_replay_job
        CHECK (status NOT IN ('enqueued', 'failed') OR attempt_count < max_attempts),
    CONSTRAINT attempts_are_counted_from_0_to_max CHECK (attempt_count >= 0 AND attempt_count <= max_attempts),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT priority_is_0_to_9 CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT run_after_is_a_day_before_year_9999
        CHECK (run_after >= '1970-01-01 00:00:00+00' AND run_after < '9999-01-01 00:00:00+00'),
    -- What no program can read would harm the rows beside it: in a claim, on a page of the
    -- dead-letter queue, in an archive.
    CONSTRAINT times_are_from_1970_to_9998_use_replay_job_or_cancel_job
        CHECK (least(created_at, started_at, lease_until, processed_at, dead_at) >= '1970-01-01 00:00:00+00'
               AND greatest(created_at, started_at, lease_until, processed_at, dead_at) < '9999-01-01 00:00:00+00'),
    CONSTRAINT history_is_an_array_kept_by_workers_and_replay_job CHECK (jsonb_typeof(history) = 'array'),
    CONSTRAINT progress_is_0_to_1_use_job_progress CHECK (progress BETWEEN 0::real AND 1::real),
    CONSTRAINT lease_is_counted_by_claims_use_cancel_job_to_end_one CHECK (lease BETWEEN 0 AND 4611686018427387904),
    CONSTRAINT payload_has_at_most_1_mib_keep_large_data_elsewhere CHECK (pg_catalog.pg_column_size(payload) <= 1048576)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE job_logs IS 'One row per job: queue, log and rate limiter at once. See the header of 0001_job_logs.sql.';
COMMENT ON COLUMN job_logs.payload_digest IS 'sha256 of type, user and the payload as the caller sent it, before defaults.';
COMMENT ON COLUMN job_logs.lease IS 'The fence: +1 at every claim and at every taking away. Never reset.';
COMMENT ON COLUMN job_logs.started_at IS 'When the last attempt was claimed.';
COMMENT ON COLUMN job_logs.locked_by IS 'The worker of the last claim (job_workers.id); it holds the job while status is processing.';
COMMENT ON COLUMN job_logs.history IS 'What went wrong before, newest last, at most 20: attempts that failed, leases that ran out, replays.';

DO $$
-- UUID version 7; for servers without uuidv7() 48 bits of milliseconds, 12 bits of their fraction,
-- 62 random bits. The default is the expression and not the function: a role that may insert needs
-- no right to call it.
DECLARE
    fresh text := CASE WHEN current_setting('server_version_num')::int >= 180000 THEN 'uuidv7()' ELSE
        $sql$(overlay(pg_catalog.lpad(pg_catalog.to_hex((extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint * 512 / 125), 15, '0')
                      PLACING '7' FROM 13 FOR 0) || substring(gen_random_uuid()::text FROM 20))::uuid$sql$ END;
BEGIN
    EXECUTE pg_catalog.format('CREATE FUNCTION job_uuid() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS %L', 'SELECT ' || fresh);
    EXECUTE 'ALTER TABLE job_logs ALTER id SET DEFAULT ' || fresh;
END
$$;

CREATE INDEX job_logs_claim ON job_logs (queue, priority, run_after, id) WHERE processed_at IS NULL;
CREATE INDEX job_logs_dead ON job_logs (dead_at, id) WHERE dead_at IS NOT NULL;
CREATE INDEX job_logs_user ON job_logs (user_id, job_type, created_at);

CREATE TABLE job_types (
    job_type      text PRIMARY KEY,
    queue         text     NOT NULL DEFAULT 'default',
    max_attempts  smallint NOT NULL DEFAULT 5,
    limit_count   integer,
    limit_window  interval,
    user_from     text,
    backoff_base  interval NOT NULL DEFAULT '2 s',
    backoff_cap   interval NOT NULL DEFAULT '1 h',
    timeout       interval NOT NULL DEFAULT '60 s',
    depends_on    text,
    admin         boolean  NOT NULL DEFAULT false,
    published_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT limit_needs_count_and_window CHECK ((limit_count IS NULL) = (limit_window IS NULL)),
    CONSTRAINT limit_is_positive CHECK (limit_count >= 1 AND limit_window > '0 s'),
    CONSTRAINT durations_are_at_most_10_years
        CHECK (greatest(limit_window, backoff_base, backoff_cap, timeout) <= '10 years'
               AND least(limit_window, backoff_base, backoff_cap, timeout) >= '0 s'),
    CONSTRAINT type_and_queue_have_1_to_255_characters
        CHECK (char_length(job_type) BETWEEN 1 AND 255 AND char_length(queue) BETWEEN 1 AND 255),
    CONSTRAINT published_at_is_finite CHECK (isfinite(published_at)),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (max_attempts BETWEEN 1 AND 1000)
);
COMMENT ON TABLE job_types IS 'Limits and defaults of each job type, published from the @task declarations.';
COMMENT ON COLUMN job_types.user_from IS 'The member of the payload that names the user, where user_id is not given.';

CREATE TABLE job_queues (
    queue      text PRIMARY KEY,
    paused     boolean     NOT NULL DEFAULT false,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT changed_at_is_finite_use_pause_queue CHECK (isfinite(changed_at))
);
COMMENT ON TABLE job_queues IS 'Queues that an operator has paused. A queue without a row runs.';

CREATE TABLE job_workers (
    id         text PRIMARY KEY,
    kind       text        NOT NULL,
    host       text        NOT NULL,
    pid        integer     NOT NULL,
    release    text        NOT NULL,
    queues     jsonb       NOT NULL DEFAULT '{}',
    types      jsonb       NOT NULL DEFAULT '{}',
    detail     jsonb       NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    asleep     boolean     NOT NULL DEFAULT false,
    lease      interval,
    CONSTRAINT queues_types_and_detail_are_objects
        CHECK (jsonb_typeof(queues) = 'object' AND jsonb_typeof(types) = 'object' AND jsonb_typeof(detail) = 'object'),
    CONSTRAINT times_are_from_1970_to_9998
        CHECK (least(started_at, seen_at) >= '1970-01-01 00:00:00+00' AND greatest(started_at, seen_at) < '9999-01-01 00:00:00+00'),
    CONSTRAINT lease_is_at_most_a_day CHECK (lease BETWEEN '0 s' AND '1 day'),
    CONSTRAINT kind_is_worker_or_api CHECK (kind IN ('worker', 'api'))
) WITH (fillfactor = 20);
COMMENT ON TABLE job_workers IS 'The processes that are alive, by their own word: seen_at is their heartbeat.';
COMMENT ON COLUMN job_workers.types IS 'Job type -> hash of the declaration that this process holds.';
COMMENT ON COLUMN job_workers.lease IS 'How long its claims hold: a lease of its that ends later was made before the clock was set back.';
COMMENT ON COLUMN job_workers.asleep IS 'Waits for the doorbell: whoever enqueues rings it and takes the flag down.';

CREATE TABLE job_tombstones (
    id_hash  bytea PRIMARY KEY,
    digest   bytea       NOT NULL,
    outcome  text        NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT outcome_is_how_a_job_ends CHECK (outcome IN ('completed', 'dlq', 'cancelled')),
    CONSTRAINT ended_at_is_finite CHECK (isfinite(ended_at))
);
CREATE INDEX job_tombstones_ended ON job_tombstones USING brin (ended_at) WITH (pages_per_range = 16);
COMMENT ON TABLE job_tombstones IS 'What is remembered of a job whose row retention removed: its id (hashed), payload digest and outcome.';

CREATE FUNCTION job_id_hash(job_id text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(pg_catalog.sha256(pg_catalog.convert_to(job_id, 'UTF8')) FOR 16)
$$;

CREATE FUNCTION job_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    -- A time as it stands in history, and as programs get it everywhere.
    SELECT pg_catalog.to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

CREATE FUNCTION job_history(history jsonb, entry jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
    -- The history with one entry more; the oldest go where there are 20. What is no array is no
    -- history.
    SELECT CASE WHEN pg_catalog.jsonb_typeof(history) IS DISTINCT FROM 'array' THEN '[]'
                WHEN pg_catalog.jsonb_array_length(history) < 20 THEN history
                ELSE pg_catalog.jsonb_path_query_array(history, '$[last - 18 to last]') END
           || pg_catalog.jsonb_build_array(entry)
$$;

CREATE FUNCTION job_moment(text) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
-- A time out of a JSON value that anybody may have written; null where it is none.
BEGIN
    RETURN CASE WHEN pg_catalog.isfinite($1::timestamptz) THEN $1::timestamptz END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION job_defaults() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- For a bare INSERT: what enqueue_job fills in is filled in here, whatever rights and search path
-- the role that inserts has. Rows of enqueue_job bring all of it and skip this.
BEGIN
    IF NEW.queue IS NULL OR NEW.max_attempts IS NULL THEN
        SELECT coalesce(NEW.queue, t.queue), coalesce(NEW.max_attempts, t.max_attempts)
          INTO NEW.queue, NEW.max_attempts
          FROM (VALUES (1)) AS one LEFT JOIN job_types t ON t.job_type = NEW.job_type;
        NEW.queue := coalesce(NEW.queue, 'default');
        NEW.max_attempts := coalesce(NEW.max_attempts, 5);
    END IF;
    NEW.payload_digest := coalesce(NEW.payload_digest, job_digest(NEW.job_type, NEW.user_id, NEW.payload));
    RETURN NEW;
END
$$;
CREATE TRIGGER job_defaults BEFORE INSERT ON job_logs FOR EACH ROW
    WHEN (NEW.payload_digest IS NULL OR NEW.queue IS NULL OR NEW.max_attempts IS NULL)
    EXECUTE FUNCTION job_defaults();

CREATE FUNCTION job_admin() RETURNS boolean LANGUAGE sql STABLE AS $$
    -- Whether the session may enqueue jobs of types that are for administrators: EXECUTE on this
    -- function is that right. What asks runs as its owner, so the question is about the role that
    -- the session has set, or else logged in as.
    SELECT pg_catalog.has_function_privilege(
        CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user ELSE pg_catalog.current_setting('role')::name END,
        'job_admin()', 'EXECUTE')
$$;

CREATE FUNCTION job_type_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- A role that may not enqueue for administrators cannot open such a type by publishing it: it stays
-- as it is, and the rest of the declaration is written.
BEGIN
    NEW.admin := NOT job_admin();
    RETURN NEW;
END
$$;
CREATE TRIGGER job_type_change BEFORE UPDATE ON job_types FOR EACH ROW WHEN (OLD.admin AND NOT NEW.admin)
    EXECUTE FUNCTION job_type_change();

REVOKE ALL ON job_logs, job_types, job_queues, job_workers, job_tombstones FROM PUBLIC;
REVOKE ALL ON FUNCTION job_uuid(), job_uuid_at(timestamptz), job_digest(text, text, jsonb), job_id_hash(text), job_time(timestamptz),
    job_moment(text), job_history(jsonb, jsonb), job_defaults(), job_admin(), job_type_change() FROM PUBLIC;
