-- The rows of the jobs that pgqueue_enqueue_unlimited() is given, in the order in which every
-- statement inserts. Postgres makes it part of the statement that calls it.
CREATE OR REPLACE FUNCTION pgqueue_rows(jobs jsonb, at timestamptz) RETURNS TABLE (
    job_id text, job_type text, user_id text, payload jsonb, payload_digest bytea, queue text,
    priority smallint, run_after timestamptz, max_attempts smallint, created_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT i.job_id, i.job_type, coalesce(i.user_id, 'system'),
           pgqueue_stored_payload(coalesce(i.payload, 'null'), i.filled, t.user_from),
           pgqueue_digest(i.job_type, coalesce(i.user_id, 'system'), coalesce(i.payload, 'null')),
           coalesce(i.queue, t.queue), coalesce(i.priority, 5)::smallint,
           coalesce(i.run_after, at + pg_catalog.make_interval(
               secs => coalesce(i.delay, (i.ord - pg_catalog.jsonb_array_length(jobs))::float8
                                         / 1000000::float8))),
           coalesce(i.max_attempts, t.max_attempts)::smallint, at
      FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (
               job_id text, job_type text, user_id text, payload jsonb, filled jsonb, queue text,
               priority integer, run_after timestamptz, delay float8, max_attempts integer))
           WITH ORDINALITY AS i(job_id, job_type, user_id, payload, filled, queue, priority,
                                run_after, delay, max_attempts, ord)
      JOIN job_types t ON t.job_type = i.job_type
     ORDER BY i.job_id COLLATE "C", i.ord
$$;

REVOKE ALL ON FUNCTION pgqueue_rows(jsonb, timestamptz) FROM PUBLIC;
