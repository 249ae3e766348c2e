-- The jobs of one document with the defaults of their types; run_after and delay count from `at`,
-- and jobs without either start in the order in which they are given. Postgres makes it part of the
-- statement that calls it.
CREATE OR REPLACE FUNCTION pgqueue_items(jobs jsonb, at timestamptz) RETURNS TABLE (
    ord integer, job_id text, job_type text, owner text, payload jsonb, filled jsonb, queue text,
    priority integer, run_after timestamptz, max_attempts integer, limit_count integer,
    limit_window interval, user_from text
) LANGUAGE sql STABLE AS $$
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

REVOKE ALL ON FUNCTION pgqueue_items(jsonb, timestamptz) FROM PUBLIC;
