-- Enqueues one job as enqueue_job() does, for pgqueue's client: a refusal is an answer and not an
-- exception, so that the caller's transaction stays usable. `filled` are members that the server
-- puts into the stored payload; they do not count for "same payload".
CREATE OR REPLACE FUNCTION pgqueue_try_enqueue(
    job_type text, payload jsonb, job_id text DEFAULT NULL, user_id text DEFAULT NULL,
    queue text DEFAULT NULL, priority integer DEFAULT NULL, run_after timestamptz DEFAULT NULL,
    max_attempts integer DEFAULT NULL, filled jsonb DEFAULT NULL
) RETURNS pgqueue_answer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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

REVOKE ALL ON FUNCTION pgqueue_try_enqueue(
    text, jsonb, text, text, text, integer, timestamptz, integer, jsonb
) FROM PUBLIC;
