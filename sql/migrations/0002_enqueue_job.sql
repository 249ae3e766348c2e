-- Enqueueing, from any language, inside the caller's own transaction. enqueue_job() is for people
-- and other programs, offer_job() and offer_jobs() are what pgqueue's own client calls: the same,
-- but a refusal is an answer and no exception, so that the caller's transaction stays usable.
--
-- All of them run with the rights of their owner: a producer needs no right on any table, and what
-- it gives is not believed.

CREATE TYPE job_ticket AS (job_id text, status text, created boolean, retry_after interval);

-- refusal: null, 'rate_limited' or 'duplicate_payload'. queue: of a job that was created, for
-- whoever rings the doorbell.
CREATE TYPE job_offer AS (job_id text, status text, created boolean, retry_after interval, refusal text, queue text);

CREATE FUNCTION known_job(job_id text, digest bytea) RETURNS SETOF job_offer LANGUAGE sql STABLE AS $$
    -- The answer for an id that is taken: by a row or, when retention has removed that, by its
    -- tombstone.
    SELECT known_job.job_id, CASE WHEN k.digest = known_job.digest THEN k.status END, false, NULL::interval,
           CASE WHEN k.digest <> known_job.digest THEN 'duplicate_payload' END, NULL::text
      FROM (SELECT j.status, j.payload_digest AS digest FROM job_logs j WHERE j.job_id = known_job.job_id
            UNION ALL
            SELECT t.outcome, t.digest FROM job_tombstones t WHERE t.id_hash = job_id_hash(known_job.job_id)) AS k
     LIMIT 1
$$;

CREATE FUNCTION limit_lock(job_type text, user_id text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- The advisory lock under which one user's jobs of one type are counted: one of 1,024 buckets
    -- per type.
    SELECT (pg_catalog.hashtext('pgqueue ' || job_type)::bigint << 32) | (pg_catalog.hashtext(user_id) & 1023)::bigint
$$;

CREATE FUNCTION job_span(span interval) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- A window in seconds: a day in it would be as long as the time zone says, and every caller
    -- sets its own.
    SELECT pg_catalog.make_interval(secs => extract(epoch FROM span)::float8)
$$;

CREATE FUNCTION limit_wait(job_type text, user_id text, limit_count integer, limit_window interval) RETURNS interval
LANGUAGE sql VOLATILE AS $$
    -- Null when one job more is within the limit, else how long until it is. Reads one index entry
    -- however many jobs there are.
    SELECT j.created_at + job_span(limit_wait.limit_window) - clock_timestamp()
      FROM job_logs j
     WHERE j.user_id = limit_wait.user_id AND j.job_type = limit_wait.job_type
       AND j.created_at > clock_timestamp() - job_span(limit_wait.limit_window)
     ORDER BY j.created_at DESC
    OFFSET limit_wait.limit_count - 1 LIMIT 1
$$;

CREATE FUNCTION job_owner(kind job_types, payload jsonb, user_id text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
-- Whose job it is: as given, else by the payload, else 'system' where nobody is counted.
DECLARE
    named text := payload ->> kind.user_from;
BEGIN
    IF user_id IS NULL AND named IS NULL AND kind.limit_count IS NOT NULL THEN
        RAISE EXCEPTION 'job type % needs a user_id: it has a limit per user', kind.job_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF kind.user_from IS NOT NULL AND user_id IS DISTINCT FROM named AND user_id IS NOT NULL THEN
        RAISE EXCEPTION 'user_id is not the % of the payload', kind.user_from USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN coalesce(user_id, named, 'system');
END
$$;

CREATE FUNCTION job_stored(payload jsonb, filled jsonb, user_from text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- The payload with what the server fills in. Whose job it is stands in the payload as it was
    -- sent, and is not filled in.
    SELECT CASE WHEN pg_catalog.jsonb_typeof(payload) = 'object' AND pg_catalog.jsonb_typeof(filled) = 'object'
                THEN payload || CASE WHEN user_from IS NULL THEN filled ELSE filled - user_from END
                ELSE payload END
$$;

CREATE FUNCTION offer_job(
    job_type text, payload jsonb, job_id text DEFAULT NULL, user_id text DEFAULT NULL, queue text DEFAULT NULL,
    priority integer DEFAULT NULL, run_after timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
    filled jsonb DEFAULT NULL  -- members that the server puts into the stored payload; they do not count for "same payload"
) RETURNS job_offer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    kind   job_types;
    key    text := coalesce(offer_job.job_id, offer_job.job_type || '-' || job_uuid()::text);
    owner  text;
    fingerprint bytea;
    wait   interval;
    offer  job_offer;
BEGIN
    SELECT * INTO kind FROM job_types t WHERE t.job_type = offer_job.job_type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown job type %', offer_job.job_type USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Job types are published by "pgqueue migrate" and by every worker that has a task for them.';
    END IF;
    IF kind.admin AND NOT job_admin() THEN
        RAISE EXCEPTION 'job type % is for administrators', offer_job.job_type USING ERRCODE = 'insufficient_privilege',
            HINT = 'Connect as a member of pgqueue_operator: see sql/roles.sql.';
    END IF;
    IF offer_job.payload IS NULL THEN
        RAISE EXCEPTION 'a job needs a payload' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    owner := job_owner(kind, offer_job.payload, offer_job.user_id);
    fingerprint := job_digest(offer_job.job_type, owner, offer_job.payload);

    IF kind.limit_count IS NOT NULL THEN
        IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'job type % has a limit: enqueue it in a READ COMMITTED transaction', offer_job.job_type
                USING ERRCODE = 'invalid_transaction_state';
        END IF;
        -- Look, lock, look again, count: each in a statement of its own, for each sees what was
        -- committed before it began.
        SELECT * INTO offer FROM known_job(key, fingerprint);
        IF FOUND THEN RETURN offer; END IF;
        PERFORM pg_catalog.pg_advisory_xact_lock(limit_lock(offer_job.job_type, owner));
        SELECT * INTO offer FROM known_job(key, fingerprint);
        IF FOUND THEN RETURN offer; END IF;
        wait := limit_wait(offer_job.job_type, owner, kind.limit_count, kind.limit_window);
        IF wait IS NOT NULL THEN RETURN (key, NULL, false, wait, 'rate_limited', NULL)::job_offer; END IF;
    END IF;

    LOOP
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after, max_attempts,
                              created_at)
        VALUES (key, offer_job.job_type, owner, job_stored(offer_job.payload, offer_job.filled, kind.user_from), fingerprint,
                coalesce(offer_job.queue, kind.queue), coalesce(offer_job.priority, 5),
                coalesce(offer_job.run_after, clock_timestamp()), coalesce(offer_job.max_attempts, kind.max_attempts),
                clock_timestamp())
        ON CONFLICT (job_id) DO NOTHING;
        IF FOUND THEN
            -- After the insert, not before: retention may have turned the row into a tombstone
            -- while we looked.
            SELECT key, CASE WHEN t.digest = fingerprint THEN t.outcome END, false, NULL::interval,
                   CASE WHEN t.digest <> fingerprint THEN 'duplicate_payload' END, NULL::text
              INTO offer FROM job_tombstones t WHERE t.id_hash = job_id_hash(key);
            IF NOT FOUND THEN RETURN (key, 'enqueued', true, NULL, NULL, coalesce(offer_job.queue, kind.queue))::job_offer; END IF;
            DELETE FROM job_logs j WHERE j.job_id = key;
            RETURN offer;
        END IF;
        SELECT * INTO offer FROM known_job(key, fingerprint);
        IF FOUND THEN RETURN offer; END IF;
    END LOOP;
END
$$;

CREATE FUNCTION enqueue_job(
    job_type text, payload jsonb, job_id text DEFAULT NULL, user_id text DEFAULT NULL, queue text DEFAULT NULL,
    priority integer DEFAULT NULL, run_after timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL
) RETURNS job_ticket LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    offer job_offer := offer_job(enqueue_job.job_type, enqueue_job.payload, enqueue_job.job_id, enqueue_job.user_id,
                                 enqueue_job.queue, enqueue_job.priority, enqueue_job.run_after, enqueue_job.max_attempts,
                                 NULL::jsonb);
BEGIN
    IF offer.refusal = 'duplicate_payload' THEN
        RAISE unique_violation USING MESSAGE = pg_catalog.format('Job ID already used with another payload: %s', offer.job_id),
            CONSTRAINT = 'unique_job_id', TABLE = 'job_logs';
    END IF;
    RETURN (offer.job_id, offer.status, offer.created, offer.retry_after)::job_ticket;
END
$$;

CREATE TYPE job_item AS (
    ord integer, job_id text, job_type text, user_id text, payload jsonb, filled jsonb, digest bytea, queue text,
    priority integer, run_after timestamptz, max_attempts integer, limit_count integer, limit_window interval
);

CREATE FUNCTION offer_jobs(jobs jsonb) RETURNS SETOF job_offer LANGUAGE plpgsql SECURITY DEFINER
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
    placed   integer[];   -- inserted
    buried   integer[];   -- and undone, for they have a tombstone
    done     integer[] := '{}';
BEGIN
    SELECT i.job_type, t.job_type IS NULL AS unknown, t.user_from,
           i.user_id IS NULL AND t.limit_count IS NOT NULL AND i.named IS NULL AS nobody
      INTO wrong
      FROM (SELECT e.item ->> 'job_type' AS job_type, e.item ->> 'user_id' AS user_id,
                   e.item -> 'payload' ->> k.user_from AS named, e.item -> 'payload' AS payload, e.ord
              FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e(item, ord)
              LEFT JOIN job_types k ON k.job_type = e.item ->> 'job_type') AS i
      LEFT JOIN job_types t ON t.job_type = i.job_type
     WHERE t.job_type IS NULL OR i.payload IS NULL
        OR i.user_id IS NULL AND t.limit_count IS NOT NULL AND i.named IS NULL
        OR i.user_id IS NOT NULL AND t.user_from IS NOT NULL AND i.user_id IS DISTINCT FROM i.named
     ORDER BY i.ord LIMIT 1;
    IF FOUND THEN
        IF wrong.unknown THEN
            RAISE EXCEPTION 'unknown job type %', wrong.job_type USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Job types are published by "pgqueue migrate" and by every worker that has a task for them.';
        ELSIF wrong.nobody THEN
            RAISE EXCEPTION 'job type % needs a user_id: it has a limit per user', wrong.job_type
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF wrong.user_from IS NOT NULL THEN
            RAISE EXCEPTION 'user_id is not the % of the payload', wrong.user_from USING ERRCODE = 'invalid_parameter_value';
        END IF;
        RAISE EXCEPTION 'a job needs a payload' USING ERRCODE = 'null_value_not_allowed';
    END IF;

    SELECT array_agg((i.ord, coalesce(i.item ->> 'job_id', i.job_type || '-' || job_uuid()), i.job_type, i.owner,
                      i.payload, i.item -> 'filled', job_digest(i.job_type, i.owner, i.payload),
                      coalesce(i.item ->> 'queue', i.queue), (i.item ->> 'priority')::integer,
                      coalesce((i.item ->> 'run_after')::timestamptz,
                               clock_timestamp() + make_interval(secs => (i.item ->> 'delay')::float8)),
                      coalesce((i.item ->> 'max_attempts')::integer, i.max_attempts), i.limit_count, i.limit_window)::job_item
                     ORDER BY i.ord)
      INTO items
      FROM (SELECT e.ord::integer, e.item, e.item -> 'payload' AS payload, t.job_type, t.queue, t.max_attempts, t.limit_count,
                   t.limit_window, coalesce(e.item ->> 'user_id', e.item -> 'payload' ->> t.user_from, 'system') AS owner
              FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e(item, ord)
              JOIN job_types t ON t.job_type = e.item ->> 'job_type') AS i;

    IF current_setting('transaction_isolation') <> 'read committed'
       AND EXISTS (SELECT FROM unnest(items) i WHERE i.limit_count IS NOT NULL) THEN
        RAISE EXCEPTION 'a job type among these has a limit: enqueue them in a READ COMMITTED transaction'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    FOR bucket IN SELECT DISTINCT limit_lock(i.job_type, i.user_id) FROM unnest(items) i
                   WHERE i.limit_count IS NOT NULL ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(bucket);
    END LOOP;

    SELECT array_agg(i.ord) INTO open FROM unnest(items) i;
    LOOP
        -- Who may in: the first of each id, and of a limited type only ids that nobody has, no more
        -- than the user has places left.
        SELECT array_agg(f.ord) FILTER (WHERE f.fits), array_agg(f.ord) FILTER (WHERE NOT f.fits) INTO admitted, open
          FROM (SELECT c.ord, c.limit_count IS NULL OR
                       row_number() OVER (PARTITION BY c.job_type, c.user_id ORDER BY c.ord)
                       + (SELECT count(*) FROM (SELECT FROM job_logs j
                                                 WHERE c.limit_count IS NOT NULL
                                                   AND j.user_id = c.user_id AND j.job_type = c.job_type
                                                   AND j.created_at > clock_timestamp() - c.limit_window
                                                 LIMIT c.limit_count) AS used) <= c.limit_count AS fits
                  FROM (SELECT DISTINCT ON (i.job_id) i.ord, i.job_id, i.job_type, i.user_id, i.limit_count, i.limit_window
                          FROM unnest(items) i WHERE i.ord = ANY (open)
                         ORDER BY i.job_id, i.ord) AS c
                 WHERE c.limit_count IS NULL OR NOT EXISTS (SELECT FROM known_job(c.job_id, ''))) AS f;

        WITH written AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, run_after,
                                  max_attempts, created_at)
            SELECT i.job_id, i.job_type, i.user_id,
                   CASE WHEN jsonb_typeof(i.filled) = 'object' THEN i.payload || i.filled ELSE i.payload END, i.digest,
                   i.queue, coalesce(i.priority, 5), coalesce(i.run_after, clock_timestamp()), i.max_attempts,
                   clock_timestamp()
              FROM unnest(items) AS i
             WHERE i.ord = ANY (admitted)
             ORDER BY i.job_id
            ON CONFLICT (job_id) DO NOTHING
            RETURNING job_logs.job_id
        )
        SELECT array_agg(i.ord) INTO placed FROM written w JOIN unnest(items) i ON i.job_id = w.job_id
         WHERE i.ord = ANY (admitted);

        WITH undone AS (
            DELETE FROM job_logs j USING unnest(items) i, job_tombstones t
             WHERE i.ord = ANY (placed) AND j.job_id = i.job_id AND t.id_hash = job_id_hash(i.job_id)
            RETURNING i.ord
        )
        SELECT coalesce(array_agg(u.ord), '{}') INTO buried FROM undone u;
        done := done || coalesce((SELECT array_agg(p) FROM unnest(placed) p WHERE p <> ALL (buried)), '{}');

        -- A place that was granted to an id which somebody else took meanwhile goes to those that
        -- found none.
        EXIT WHEN open IS NULL OR admitted IS NULL
               OR coalesce(cardinality(placed), 0) - cardinality(buried) = cardinality(admitted);
    END LOOP;

    RETURN QUERY
    SELECT a.job_id, a.status, a.created, a.retry_after, a.refusal, a.queue
      FROM (SELECT i.ord, i.job_id, 'enqueued' AS status, true AS created, NULL::interval AS retry_after, NULL AS refusal, i.queue
              FROM unnest(items) AS i WHERE i.ord = ANY (done)
            UNION ALL
            SELECT i.ord, i.job_id, k.status, false,
                   CASE WHEN k.job_id IS NULL
                        THEN coalesce(limit_wait(i.job_type, i.user_id, i.limit_count, i.limit_window), '0 s') END,
                   CASE WHEN k.job_id IS NULL THEN 'rate_limited' ELSE k.refusal END, NULL
              FROM unnest(items) AS i LEFT JOIN LATERAL known_job(i.job_id, i.digest) AS k ON true
             WHERE i.ord <> ALL (done)) AS a
     ORDER BY a.ord;
END
$$;

REVOKE ALL ON TYPE job_ticket, job_offer, job_item FROM PUBLIC;
REVOKE ALL ON FUNCTION known_job(text, bytea), limit_lock(text, text), job_span(interval),
    limit_wait(text, text, integer, interval), job_owner(job_types, jsonb, text), job_stored(jsonb, jsonb, text),
    offer_job(text, jsonb, text, text, text, integer, timestamptz, integer, jsonb),
    enqueue_job(text, jsonb, text, text, text, integer, timestamptz, integer), offer_jobs(jsonb) FROM PUBLIC;
