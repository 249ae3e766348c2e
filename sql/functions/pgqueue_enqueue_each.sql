-- Part of pgqueue_enqueue_many(), where more than the id can refuse a job: all locks first, in one
-- order; then pgqueue_admit() for each job, in the order of the ids. Two calls with the same users
-- or the same ids wait for one another, but never crosswise.
CREATE OR REPLACE FUNCTION pgqueue_enqueue_each(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
LANGUAGE plpgsql AS $$
DECLARE
    many   integer := pg_catalog.jsonb_array_length(jobs);
    bucket bigint;
    at     timestamptz;
    item   record;
    answer pgqueue_answer;
BEGIN
    FOR bucket IN
        SELECT DISTINCT pgqueue_limit_lock(i.job_type, pgqueue_owner(t, i.payload, i.user_id))
          FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_type text, user_id text, payload jsonb)
          JOIN job_types t ON t.job_type = i.job_type
         WHERE t.limit_count IS NOT NULL ORDER BY 1
    LOOP
        PERFORM pg_catalog.pg_advisory_xact_lock(bucket);
    END LOOP;
    at := clock_timestamp();
    FOR item IN
        WITH given AS (
            SELECT i.*, t AS kind, pgqueue_owner(t, i.payload, i.user_id) AS owner
              FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (
                       job_id text, job_type text, user_id text, payload jsonb, filled jsonb,
                       queue text, priority integer, run_after timestamptz, delay float8,
                       max_attempts integer)) WITH ORDINALITY AS i(
                       job_id, job_type, user_id, payload, filled, queue, priority, run_after,
                       delay, max_attempts, ord)
              JOIN job_types t ON t.job_type = i.job_type
        ), ranked AS (
            SELECT g.*, row_number() OVER (PARTITION BY g.job_type, g.owner ORDER BY g.ord) AS nth,
                   count(*) OVER (PARTITION BY g.job_type, g.owner) AS jobs
              FROM given g
        ), placed AS (
            SELECT r.*, (r.kind).limit_count IS NOT NULL AND r.jobs > 1 AND (
                       r.nth > (r.kind).limit_count
                       OR r.nth + (SELECT count(*) FROM (
                              SELECT FROM job_logs j
                               WHERE j.user_id = r.owner AND j.job_type = r.job_type
                                 AND j.created_at > at - pgqueue_span((r.kind).limit_window)
                               LIMIT (r.kind).limit_count) AS used) > (r.kind).limit_count) AS late
              FROM ranked r
        )
        -- Late are the jobs that find no place if all before them are new. They come last, so that
        -- the earlier jobs of a user take the places; a duplicate among those leaves its place.
        SELECT p.* FROM placed p
         ORDER BY p.late, CASE WHEN p.late THEN p.ord END, p.job_id COLLATE "C", p.ord
    LOOP
        answer := pgqueue_admit(
            item.kind, item.job_id, item.owner, coalesce(item.payload, 'null'), item.filled,
            pgqueue_digest(item.job_type, item.owner, coalesce(item.payload, 'null')), item.queue,
            item.priority,
            coalesce(item.run_after, at + pg_catalog.make_interval(secs => coalesce(
                item.delay, (item.ord - many)::float8 / 1000000::float8))),
            item.max_attempts);
        IF NOT answer.created THEN
            RETURN NEXT (item.ord, answer.job_id, answer.status, false, answer.retry_after,
                         answer.refusal, NULL, NULL)::pgqueue_bulk_answer;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_enqueue_each(jsonb) FROM PUBLIC;
