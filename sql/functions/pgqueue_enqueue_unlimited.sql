-- Part of pgqueue_enqueue_many(), where nothing but the id can refuse a job: one insert of all.
CREATE OR REPLACE FUNCTION pgqueue_enqueue_unlimited(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
LANGUAGE plpgsql AS $$
DECLARE
    at   timestamptz := clock_timestamp();
    mine jsonb;
BEGIN
    BEGIN
        -- To look for a conflict at every row costs a tenth of the whole, and there is hardly ever
        -- one.
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority,
                              run_after, max_attempts, created_at)
        SELECT r.* FROM pgqueue_rows(jobs, at) AS r;
    EXCEPTION WHEN unique_violation THEN
        WITH inserted AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue,
                                  priority, run_after, max_attempts, created_at)
            SELECT r.* FROM pgqueue_rows(jobs, at) AS r ON CONFLICT (job_id) DO NOTHING
            RETURNING job_id
        )
        SELECT coalesce(pg_catalog.jsonb_object_agg(i.job_id, true), '{}') INTO mine
          FROM inserted i;
    END;
    IF mine IS NULL THEN
        IF NOT EXISTS (SELECT FROM job_tombstones)
           OR NOT EXISTS (SELECT FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text)
                            JOIN job_tombstones t ON t.id_hash = pgqueue_id_hash(i.job_id)) THEN
            RETURN;
        END IF;
        SELECT pg_catalog.jsonb_object_agg(i.job_id, true) INTO mine
          FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text);
    END IF;
    -- Some ids were known, perhaps by a tombstone. (Sets are objects: a plan that does not know how
    -- long an array is would join it row by row.) After the insert, not before: retention may have
    -- turned a row into a tombstone while this statement waited for it.
    WITH undone AS (
        DELETE FROM job_logs j
         USING pg_catalog.jsonb_object_keys(mine) AS m(job_id), job_tombstones t
         WHERE j.job_id = m.job_id AND t.id_hash = pgqueue_id_hash(m.job_id)
        RETURNING j.job_id
    )
    SELECT coalesce(mine, '{}') - coalesce(pg_catalog.array_agg(u.job_id), '{}') INTO mine
      FROM undone u;
    RETURN QUERY
    SELECT i.ord::integer, k.job_id, k.status, false, NULL::interval, k.refusal, NULL, NULL
      FROM (SELECT i.ord, i.job_id,
                   pgqueue_digest(i.job_type, coalesce(i.user_id, 'system'),
                                  coalesce(i.payload, 'null')) AS digest,
                   row_number() OVER (PARTITION BY i.job_id ORDER BY i.ord) = 1 AS first
              FROM ROWS FROM (pg_catalog.jsonb_to_recordset(jobs) AS (
                       job_id text, job_type text, user_id text, payload jsonb))
                   WITH ORDINALITY AS i(job_id, job_type, user_id, payload, ord)) AS i
     CROSS JOIN LATERAL pgqueue_known_job(i.job_id, i.digest) AS k
     WHERE NOT (i.first AND mine ? i.job_id);
END
$$;

REVOKE ALL ON FUNCTION pgqueue_enqueue_unlimited(jsonb) FROM PUBLIC;
