-- The rows of the jobs that pgqueue_enqueue_many() is given, without those whose number is a key of
-- `late`, in the order in which every statement inserts. Postgres makes it part of the statement
-- that calls it.
CREATE OR REPLACE FUNCTION pgqueue_rows(jobs jsonb, late jsonb, at timestamptz) RETURNS TABLE (
    job_id text, job_type text, user_id text, payload jsonb, payload_digest bytea, queue text,
    priority smallint, run_after timestamptz, max_attempts smallint, created_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT i.job_id, i.job_type, i.owner, pgqueue_stored_payload(i.payload, i.filled, i.user_from),
           pgqueue_digest(i.job_type, i.owner, i.payload), i.queue, i.priority::smallint,
           i.run_after, i.max_attempts::smallint, at
      FROM pgqueue_items(jobs, at) AS i
     WHERE late IS NULL OR NOT late ? i.ord::text
     ORDER BY i.job_id COLLATE "C", i.ord
$$;

REVOKE ALL ON FUNCTION pgqueue_rows(jsonb, jsonb, timestamptz) FROM PUBLIC;
