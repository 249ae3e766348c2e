-- Who may do what: five group roles, to be granted to the roles that people and programs log in as.
-- Until it has run, only the owner of the tables and superusers may do anything. Run it after every
-- `pgqueue migrate`, as the superuser or as the owner of the tables with CREATEROLE:
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/roles.sql
--
-- It refuses a schema in which other roles may create things (public was such a schema before
-- Postgres 15), because what they create there can be taken for the server's own operators and
-- functions. To go on with a warning instead: PGOPTIONS="-c pgqueue.others_may_create=on".
--
-- As often as you like: it states what is, and runs in one transaction. When the tables are in a
-- schema of their own, that schema has to be first on the search path (PGOPTIONS="-c
-- search_path=NAME"). Roles belong to the whole server, rights to this database.
--
-- pgqueue_migrator   owns everything: tables, functions, and with them the rights that the
--                    functions lend. No program works as it
-- pgqueue_producer   enqueues (enqueue_job, and what the client calls) and rings the doorbell. No
--                    right on any table, so that it can neither read the payloads of others nor go
--                    round a limit by a bare INSERT; no jobs of types with admin=True
-- pgqueue_worker     performs jobs: reads all, changes the columns of a job that an attempt changes
--                    (never payload, user or id), publishes job types (but cannot take admin=True
--                    from one), keeps its place among the processes, prunes; and enqueues, for
--                    handlers that do
-- pgqueue_reader     reads everything and changes nothing. It sees payloads too, or SELECT * would
--                    not work: they are personal data, so this is for operators, and not for a
--                    dashboard that all users open
-- pgqueue_operator   what the API and `pgqueue` as a tool need: reader and producer, jobs of types
--                    with admin=True, cancel, replay, delete, pause, publishing job types, and a
--                    place among the processes. No UPDATE on any job but by the functions
--
-- The role that owned the tables so far becomes a member of pgqueue_migrator, so that what works
-- goes on working; take that away (REVOKE pgqueue_migrator FROM ...) when every program has a role
-- of its own.
--
-- Roles to log in with, for example:
--
--   CREATE ROLE queue_deploy LOGIN IN ROLE pgqueue_migrator;
--   ALTER ROLE queue_deploy SET role = 'pgqueue_migrator';
--   CREATE ROLE queue_shop LOGIN IN ROLE pgqueue_producer;
--   CREATE ROLE queue_worker LOGIN IN ROLE pgqueue_worker;
--   CREATE ROLE queue_api LOGIN IN ROLE pgqueue_operator;
--   CREATE ROLE queue_look LOGIN IN ROLE pgqueue_reader;
--   ALTER ROLE queue_look SET default_transaction_read_only = on;
--
-- Give each a password, or a line in pg_hba.conf. What a deployer creates belongs to
-- pgqueue_migrator because of its SET role.
--
-- Behind a pooler in transaction mode (PGQUEUE_PGBOUNCER=on) a process cannot set anything for its
-- connections, so that it has to be said here, for the roles that log in (a group's settings are
-- not inherited). Without these a lost worker's statement holds its locks for as long as it likes,
-- and a claim may choose a plan that reads all live rows:
--
--   ALTER ROLE queue_worker SET statement_timeout = '30s';
--   ALTER ROLE queue_worker SET lock_timeout = '30s';
--   ALTER ROLE queue_worker SET idle_in_transaction_session_timeout = '30s';
--   ALTER ROLE queue_worker SET enable_seqscan = off;
--   ALTER ROLE queue_worker SET enable_bitmapscan = off;
--   ALTER ROLE queue_worker SET jit = off;
--   ALTER ROLE queue_api SET statement_timeout = '30s';
--   ALTER ROLE queue_api SET idle_in_transaction_session_timeout = '30s';
--
-- And where the database's default_transaction_isolation is not 'read committed':
--   ALTER ROLE queue_worker SET default_transaction_isolation = 'read committed';
--   ALTER ROLE queue_api SET default_transaction_isolation = 'read committed';
--
-- (enable_sort stays on: a worker switches it off on the connection of its claims alone.) If
-- DATABASE_URL had a ?schema=:
--   ALTER ROLE queue_worker SET search_path = ...; and so for every role that logs in.

BEGIN;

DO $$
DECLARE
    name   text;
    others text;
BEGIN
    IF to_regclass('job_logs') IS NULL OR to_regclass('job_migrations') IS NULL THEN
        RAISE EXCEPTION 'the tables of pgqueue are not on the search path (%)',
            current_setting('search_path')
            USING HINT = 'Run "pgqueue migrate" first; or name their schema: '
                         'PGOPTIONS="-c search_path=NAME".';
    END IF;
    SELECT string_agg(c.role::text, ', ' ORDER BY c.role::text) INTO others FROM (
        -- The same question as in sql/queries/list_creators.sql.
        SELECT DISTINCT coalesce(r.rolname, 'PUBLIC') AS role
          FROM pg_class t
          JOIN pg_namespace n ON n.oid = t.relnamespace
         CROSS JOIN LATERAL (SELECT a.grantee FROM aclexplode(n.nspacl) AS a
                              WHERE a.privilege_type = 'CREATE'
                             UNION SELECT n.nspowner) AS may
          LEFT JOIN pg_roles r ON r.oid = may.grantee
         WHERE t.oid = to_regclass('job_logs')::oid
           AND r.rolname IS DISTINCT FROM 'pg_database_owner'
           AND (r.oid IS NULL OR NOT r.rolsuper
                AND NOT pg_has_role(r.oid, t.relowner, 'USAGE'::text))) AS c;
    IF others IS NOT NULL
       AND coalesce(current_setting('pgqueue.others_may_create', true), '') = 'on' THEN
        RAISE WARNING 'others may create in the schema of pgqueue: %', others;
    ELSIF others IS NOT NULL THEN
        RAISE EXCEPTION 'others may create in the schema of pgqueue: %', others
            USING HINT = pg_catalog.format(
            'REVOKE CREATE ON SCHEMA %s FROM %s; or give pgqueue a schema of its own. '
            'With PGOPTIONS="-c pgqueue.others_may_create=on" this is a warning.',
            (SELECT c.relnamespace::regnamespace FROM pg_class c
              WHERE c.oid = to_regclass('job_logs')::oid), others);
    END IF;
    FOREACH name IN ARRAY ARRAY['pgqueue_migrator', 'pgqueue_producer', 'pgqueue_worker',
                                'pgqueue_reader', 'pgqueue_operator'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = name) THEN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another session ran this for another database at the same moment
        END;
    END LOOP;
    IF NOT pg_has_role('pgqueue_operator'::name, 'pgqueue_reader'::name, 'MEMBER'::text)
       OR NOT pg_has_role('pgqueue_operator'::name, 'pgqueue_producer'::name, 'MEMBER'::text)
       OR NOT pg_has_role('pgqueue_worker'::name, 'pgqueue_producer'::name, 'MEMBER'::text) THEN
        GRANT pgqueue_reader, pgqueue_producer TO pgqueue_operator;
        GRANT pgqueue_producer TO pgqueue_worker;
    END IF;
END
$$;

DO $$
-- Owner, and rights to functions: each is for the roles that are named below, and for no other. A
-- function in `internal` is called by other functions and by triggers, and by no session.
DECLARE
    home      text := (SELECT c.relnamespace::regnamespace FROM pg_class c
                        WHERE c.oid = to_regclass('job_logs')::oid);
    was_owner text := (SELECT c.relowner::regrole FROM pg_class c
                        WHERE c.oid = to_regclass('job_logs')::oid);
    tables    text[] := ARRAY['job_logs', 'job_types', 'job_queues', 'job_workers',
                              'job_tombstones', 'job_dependencies', 'job_migrations',
                              'job_functions'];
    types     text[] := ARRAY['job_ticket', 'job_change', 'pgqueue_answer', 'pgqueue_bulk_answer'];
    enqueuing text[] := ARRAY['enqueue_job', 'pgqueue_try_enqueue', 'pgqueue_enqueue_many',
                              'pgqueue_enqueue_group', 'ring_doorbell'];
    steering  text[] := ARRAY['cancel_job', 'delete_dead_job', 'replay_job', 'replay_jobs',
                              'pause_queue', 'pgqueue_is_admin'];
    looking   text[] := ARRAY['dead_jobs', 'pgqueue_readable_job', 'pgqueue_limit_wait',
                              'pgqueue_span', 'job_uuid_at', 'pgqueue_id_hash', 'pgqueue_digest',
                              'pgqueue_time'];
    working   text[] := ARRAY['pgqueue_history', 'pgqueue_moment', 'pgqueue_dependency_failed',
                              'pgqueue_dependency_probed', 'pgqueue_dependency_works',
                              'pgqueue_claim_probe'];
    internal  text[] := ARRAY['pgqueue_uuid', 'pgqueue_fill_defaults', 'pgqueue_keep_admin',
                              'pgqueue_job_type', 'pgqueue_known_job', 'pgqueue_limit_lock',
                              'pgqueue_owner', 'pgqueue_stored_payload', 'pgqueue_admit',
                              'pgqueue_items', 'pgqueue_late_jobs', 'pgqueue_rows',
                              'pgqueue_unchanged_job'];
    ours      text[] := pg_catalog.array_cat(
        pg_catalog.array_cat(enqueuing, steering),
        pg_catalog.array_cat(pg_catalog.array_cat(looking, working), internal));
    who       record;
    what      text;
BEGIN
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %s TO pgqueue_producer, pgqueue_worker, '
                              'pgqueue_reader, pgqueue_operator', home);
    EXECUTE pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA %s TO pgqueue_migrator', home);
    FOR who IN SELECT r.rolname FROM pg_roles r
                WHERE NOT r.rolsuper AND r.rolname <> 'pgqueue_migrator'
                  AND NOT pg_has_role(r.oid, 'pgqueue_migrator'::name, 'USAGE'::text)
                  AND (r.rolname = current_user OR r.oid = was_owner::regrole::oid) LOOP
        EXECUTE pg_catalog.format('GRANT pgqueue_migrator TO %I', who.rolname);
    END LOOP;
    FOREACH what IN ARRAY tables LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s.%I OWNER TO pgqueue_migrator', home, what);
        EXECUTE pg_catalog.format('REVOKE ALL ON %s.%I FROM PUBLIC', home, what);
    END LOOP;
    FOREACH what IN ARRAY types LOOP
        EXECUTE pg_catalog.format('ALTER TYPE %s.%I OWNER TO pgqueue_migrator', home, what);
        EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %s.%I FROM PUBLIC', home, what);
    END LOOP;
    FOR who IN SELECT p.oid::regprocedure AS signature, p.prosecdef,
                      CASE WHEN p.proname = ANY (enqueuing) THEN 'pgqueue_producer'
                           WHEN p.proname = ANY (steering) THEN 'pgqueue_operator'
                           WHEN p.proname = ANY (looking) THEN 'pgqueue_reader, pgqueue_worker'
                           WHEN p.proname = ANY (working) THEN 'pgqueue_worker' END AS callers
                 FROM pg_proc p
                WHERE p.pronamespace = home::regnamespace::oid
                  AND p.proname = ANY (ours) LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO pgqueue_migrator', who.signature);
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', who.signature);
        IF who.callers IS NOT NULL THEN
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s',
                                      who.signature, who.callers);
        END IF;
        IF who.prosecdef THEN
            -- pg_temp last: else a caller's temporary table called job_logs would come before ours.
            EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path = %s, pg_temp',
                                      who.signature, home);
        END IF;
    END LOOP;
END
$$;

GRANT SELECT ON job_logs, job_types, job_queues, job_workers, job_tombstones, job_dependencies,
                job_migrations, job_functions
   TO pgqueue_reader, pgqueue_worker;

GRANT UPDATE (status, attempt_count, run_after, lease, started_at, lease_until, processed_at,
              dead_at, locked_by, error, stack_trace, progress, progress_note, history, intent_at,
              receipt) ON job_logs TO pgqueue_worker;
-- For retention. With PGQUEUE_AUTO_PRUNE=off and a role of its own for `prune` it can go.
GRANT DELETE ON job_logs TO pgqueue_worker;
GRANT INSERT, DELETE, UPDATE (ended_at) ON job_tombstones TO pgqueue_worker;

-- All but job_type: a role that could rename a type with a limit, or one for administrators, could
-- publish another in its place.
GRANT INSERT, UPDATE (queue, max_attempts, limit_count, limit_window, user_from, backoff_base,
                      backoff_cap, timeout, depends_on, admin, published_at)
   ON job_types TO pgqueue_worker, pgqueue_operator;
GRANT INSERT, UPDATE ON job_dependencies TO pgqueue_worker;
GRANT INSERT, UPDATE, DELETE ON job_workers TO pgqueue_worker, pgqueue_operator;

COMMENT ON ROLE pgqueue_migrator IS 'pgqueue: owns the tables and functions; for migrations.';
COMMENT ON ROLE pgqueue_producer IS 'pgqueue: may enqueue jobs, and nothing else.';
COMMENT ON ROLE pgqueue_worker IS 'pgqueue: may perform jobs.';
COMMENT ON ROLE pgqueue_reader IS 'pgqueue: may look at everything, payloads included.';
COMMENT ON ROLE pgqueue_operator IS
    'pgqueue: the API and the command line: reads, enqueues, cancels, replays, pauses.';

COMMIT;
