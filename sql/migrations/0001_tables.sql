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
-- cancelled) have it set. The claim index depends on that column and not on status: a claim changes
-- status, lease and clock columns only, none of which is in any index, so it is a heap-only update
-- inside the free part of each page (fillfactor). For the same reason the columns that change stand
-- behind those that do not: WAL carries only the bytes between the first and the last change.
--
-- lease is the fence. It grows by one at every claim, and at every statement that takes a running
-- job from its worker (cancel, 24-hour rule, no attempts left); it never goes back. Every write of
-- an attempt names the lease that it holds; a write that changes no row has lost it.
--
-- Nothing here needs an extension. Postgres 15 to 18.

-- This file makes the tables, their rules and indexes, the types of results, and the two functions
-- that a table itself calls (triggers). Every other function has a file in sql/functions/, which
-- `migrate` applies after the migrations, again whenever the file changes. A migration therefore
-- uses no function from there, and a function from there may use every table.
--
--   to change a function's body         edit its file
--   to change its parameters or result  a migration drops the old one (DROP FUNCTION name(types)),
--                                       and `migrate` makes the new one in the same transaction.
--                                       Where the previous release calls it: a new name now, and
--                                       the DROP a release later.
--   to remove a function                a migration drops it, a release after its last caller
--   to change a type of a result        a migration (ALTER TYPE ... ADD ATTRIBUTE), then its
--                                       functions

-- Who may do what: nothing here is for PUBLIC. Each file takes back what a database grants by
-- default, and sql/roles.sql grants rights.
--
-- A function that runs with its owner's rights must not run what another role made. Its search_path
-- is ours and pg_temp last. That is not enough where other roles may create things in our schema:
-- of two operators or functions Postgres takes the one whose types fit better, with any owner. So
-- in these functions each operator has operands of exactly the types that the server's own has, a
-- call of ours has exactly its argument types and all of its arguments, and a call of the server's
-- with arguments names pg_catalog. tests/schema/test_definers.py tries it.

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
    intent_at       timestamptz,
    receipt         text,

    -- The name of a CHECK is the error message for a person who writes into job_logs by hand, and
    -- says which function to call. (Postgres tests them in the order of their names: a live job
    -- that is made dlq meets the rule that names cancel_job.)
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
    CONSTRAINT live_job_has_no_processed_at_use_replay_job_unless_completed
        CHECK (status IN ('completed', 'dlq', 'cancelled') OR processed_at IS NULL),
    CONSTRAINT only_workers_fill_dlq_leave_it_by_replay_job_or_delete_dead_job
        CHECK ((status = 'dlq') = (dead_at IS NOT NULL)),
    CONSTRAINT only_workers_start_processing_use_cancel_job_to_end_it
        CHECK ((status = 'processing') = (lease_until IS NOT NULL)),
    CONSTRAINT waiting_job_has_attempts_left_use_replay_job_if_dead
        CHECK (status NOT IN ('enqueued', 'failed') OR attempt_count < max_attempts),
    CONSTRAINT attempts_are_counted_from_0_to_max
        CHECK (attempt_count >= 0 AND attempt_count <= max_attempts),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT priority_is_0_to_9 CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT run_after_is_a_day_before_year_9999
        CHECK (run_after >= '1970-01-01 00:00:00+00' AND run_after < '9999-01-01 00:00:00+00'),
    -- A value that no program can read would harm other rows too: in a claim, on a page of the
    -- dead-letter queue, in an archive.
    CONSTRAINT times_are_from_1970_to_9998_use_replay_job_or_cancel_job
        CHECK (least(created_at, started_at, lease_until, processed_at, dead_at)
                   >= '1970-01-01 00:00:00+00'
               AND greatest(created_at, started_at, lease_until, processed_at, dead_at)
                   < '9999-01-01 00:00:00+00'),
    CONSTRAINT intent_is_from_1970_to_9998_use_job_intend
        CHECK (intent_at >= '1970-01-01 00:00:00+00' AND intent_at < '9999-01-01 00:00:00+00'),
    CONSTRAINT history_is_an_array_kept_by_workers_and_replay_job
        CHECK (jsonb_typeof(history) = 'array'),
    CONSTRAINT progress_is_0_to_1_use_job_progress CHECK (progress BETWEEN 0::real AND 1::real),
    CONSTRAINT lease_is_counted_by_claims_use_cancel_job_to_end_one
        CHECK (lease BETWEEN 0 AND 4611686018427387904),
    CONSTRAINT payload_has_at_most_1_mib_keep_large_data_elsewhere
        CHECK (pg_catalog.pg_column_size(payload) <= 1048576)
) WITH (
    -- With half of each page free, one claim in six was not heap-only for some lengths of row.
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE job_logs IS
    'One row for each job: queue, log and rate limiter. See sql/migrations/0001_tables.sql.';
COMMENT ON COLUMN job_logs.payload_digest IS
    'sha256 of type, user and the payload as the caller sent it, before defaults.';
COMMENT ON COLUMN job_logs.lease IS
    'The fence: +1 at every claim, and when a running job is taken from its worker. Never reset.';
COMMENT ON COLUMN job_logs.started_at IS 'When the last attempt was claimed.';
COMMENT ON COLUMN job_logs.locked_by IS
    'The worker of the last claim (job_workers.id); it holds the job while status is processing.';
COMMENT ON COLUMN job_logs.history IS
    'Failed attempts, leases that ran out, and replays: the newest 20, newest last.';
COMMENT ON COLUMN job_logs.intent_at IS
    'When an attempt declared an irreversible side effect whose outcome is not known.';
COMMENT ON COLUMN job_logs.receipt IS
    'What the completed attempt has to show, such as the answer of a mail server.';

DO $$
-- UUID version 7; for servers without uuidv7() 48 bits of milliseconds, 12 bits of their fraction,
-- 62 random bits. The default is the expression and not a function: a role that may insert needs
-- no right to call it.
DECLARE
    fresh text := CASE WHEN current_setting('server_version_num')::int >= 180000 THEN 'uuidv7()'
        ELSE $sql$(overlay(pg_catalog.lpad(pg_catalog.to_hex(
                       (extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint
                       * 512 / 125), 15, '0') PLACING '7' FROM 13 FOR 0)
                   || substring(gen_random_uuid()::text FROM 20))::uuid$sql$ END;
BEGIN
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
COMMENT ON TABLE job_types IS
    'Limits and defaults of each job type, published from the @task declarations.';
COMMENT ON COLUMN job_types.user_from IS
    'The member of the payload that names the user, where user_id is not given.';

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
        CHECK (jsonb_typeof(queues) = 'object' AND jsonb_typeof(types) = 'object'
               AND jsonb_typeof(detail) = 'object'),
    CONSTRAINT times_are_from_1970_to_9998
        CHECK (least(started_at, seen_at) >= '1970-01-01 00:00:00+00'
               AND greatest(started_at, seen_at) < '9999-01-01 00:00:00+00'),
    CONSTRAINT lease_is_at_most_a_day CHECK (lease BETWEEN '0 s' AND '1 day'),
    CONSTRAINT kind_is_worker_or_api CHECK (kind IN ('worker', 'api'))
) WITH (fillfactor = 20);
COMMENT ON TABLE job_workers IS 'The processes that are alive; seen_at is their heartbeat.';
COMMENT ON COLUMN job_workers.types IS 'Job type -> hash of the declaration that this process has.';
COMMENT ON COLUMN job_workers.lease IS
    'How long its claims hold. One that ends later was made before the clock was set back.';
COMMENT ON COLUMN job_workers.asleep IS
    'Waits for the doorbell: a client that enqueues rings it and clears the flag.';

CREATE TABLE job_tombstones (
    id_hash  bytea PRIMARY KEY,
    digest   bytea       NOT NULL,
    outcome  text        NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT outcome_is_how_a_job_ends CHECK (outcome IN ('completed', 'dlq', 'cancelled')),
    CONSTRAINT ended_at_is_finite CHECK (isfinite(ended_at))
);
CREATE INDEX job_tombstones_ended ON job_tombstones USING brin (ended_at)
    WITH (pages_per_range = 16);
COMMENT ON TABLE job_tombstones IS
    'What is kept of a job whose row was removed: its id (hashed), payload digest and outcome.';
COMMENT ON COLUMN job_tombstones.ended_at IS
    'When the row was removed: from then on the id is known by the tombstone alone.';

-- What jobs depend on (a mail server, the API of another service), and whether it works: the
-- circuit breaker.
--
--   closed -----> open         five different jobs failed on it within 10 s and none succeeded, or
--                              one job knows that it is down
--   open -------> half_open    its time has come: one job of one of its types starts, the probe;
--                              all others wait
--   half_open --> closed       the probe succeeded
--   half_open --> open         it failed, or its worker is gone; the next one comes later
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
        CHECK ((state = 'closed') = (opened_at IS NULL)
               AND (state = 'closed') = (probe_at IS NULL)),
    CONSTRAINT failures_are_an_object CHECK (jsonb_typeof(failures) = 'object'),
    CONSTRAINT times_are_from_1970_to_9998
        CHECK (least(opened_at, closed_at, probe_at, changed_at) >= '1970-01-01 00:00:00+00'
               AND greatest(opened_at, closed_at, probe_at, changed_at) < '9999-01-01 00:00:00+00'),
    CONSTRAINT probe_pause_is_at_most_a_day CHECK (probe_pause BETWEEN '0 s' AND '1 day'),
    CONSTRAINT probe_goes_with_half_open CHECK ((state = 'half_open') = (probe_id IS NOT NULL))
) WITH (fillfactor = 20);
COMMENT ON TABLE job_dependencies IS
    'What jobs depend on, and whether it works. No row: no job has failed on it.';
COMMENT ON COLUMN job_dependencies.failures IS
    'While closed: jobs that failed on it since one last succeeded (row id -> when).';
COMMENT ON COLUMN job_dependencies.closed_at IS
    'When it last closed: failures of attempts that began before do not count.';
COMMENT ON COLUMN job_dependencies.probe_at IS 'When the next probe may start.';

CREATE TABLE job_functions (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    release    text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE job_functions IS 'Which version of each file of sql/functions/ was applied last.';
COMMENT ON COLUMN job_functions.release IS
    'The release of pgqueue that applied it: an older one does not replace it.';

-- Results of the functions.
CREATE TYPE job_ticket AS (job_id text, status text, created boolean, retry_after interval);
CREATE TYPE job_change AS (job_id text, status text, changed boolean, message text);

-- refusal: null, 'rate_limited' or 'duplicate_payload'. queue: of a job that was created, for the
-- doorbell.
CREATE TYPE pgqueue_answer AS (
    job_id text, status text, created boolean, retry_after interval, refusal text, queue text
);

-- A row is about a job (ord to refusal; ord counts the given jobs from 1) or about a job type
-- (job_type and its queue). The columns of the other kind are null.
CREATE TYPE pgqueue_bulk_answer AS (
    ord integer, job_id text, status text, created boolean, retry_after interval, refusal text,
    job_type text, queue text
);

CREATE FUNCTION pgqueue_fill_defaults() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
CREATE TRIGGER pgqueue_fill_defaults BEFORE INSERT ON job_logs FOR EACH ROW
    WHEN (NEW.payload_digest IS NULL OR NEW.queue IS NULL OR NEW.max_attempts IS NULL)
    EXECUTE FUNCTION pgqueue_fill_defaults();

CREATE FUNCTION pgqueue_keep_admin() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
-- A role that may not enqueue for administrators cannot open such a type by publishing it: the type
-- stays closed, and the rest of the declaration is written.
BEGIN
    NEW.admin := NOT pgqueue_is_admin();
    RETURN NEW;
END
$$;
CREATE TRIGGER pgqueue_keep_admin BEFORE UPDATE ON job_types FOR EACH ROW
    WHEN (OLD.admin AND NOT NEW.admin) EXECUTE FUNCTION pgqueue_keep_admin();

REVOKE ALL ON job_logs, job_types, job_queues, job_workers, job_tombstones, job_dependencies,
    job_functions FROM PUBLIC;
REVOKE ALL ON TYPE job_ticket, job_change, pgqueue_answer, pgqueue_bulk_answer FROM PUBLIC;
REVOKE ALL ON FUNCTION pgqueue_fill_defaults(), pgqueue_keep_admin() FROM PUBLIC;
