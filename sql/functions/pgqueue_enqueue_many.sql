-- Enqueues many jobs in one commit: an array of objects with job_id, job_type and payload, and as
-- with pgqueue_try_enqueue() user_id, queue, priority, run_after, max_attempts, filled; or delay,
-- in seconds from now. (Postgres parses one document thirty times as fast as an array of jsonb.)
--
-- Answers one row for each job that was not created, and one for each job type among them, with
-- its queue. Jobs of one queue and priority start in the order in which they are given, and the
-- earlier ones of a user take the first places of a limit.
--
-- Jobs that nothing but their ids can refuse are inserted by one statement. pgqueue_admit() decides
-- about the others, one by one.
CREATE OR REPLACE FUNCTION pgqueue_enqueue_many(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET work_mem = '64MB'  -- ten thousand jobs are sorted
AS $$
DECLARE
    kinds  job_types[];
    at     timestamptz := clock_timestamp();
    late   jsonb;
    mine   jsonb;
    item   record;
    answer pgqueue_answer;
BEGIN
    SELECT pg_catalog.array_agg(pgqueue_job_type(d.job_type)) INTO kinds
      FROM (SELECT DISTINCT i.job_type
              FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_type text) ORDER BY 1) AS d;
    RETURN QUERY SELECT NULL::integer, NULL, NULL, NULL::boolean, NULL::interval, NULL, k.job_type,
                        k.queue
                   FROM pg_catalog.unnest(kinds) AS k;
    IF EXISTS (SELECT FROM pg_catalog.unnest(kinds) AS k WHERE k.limit_count IS NOT NULL) THEN
        late := pgqueue_late_jobs(jobs, at);
        at := clock_timestamp();
    END IF;
    BEGIN
        -- To look for a conflict at every row costs a tenth of the whole, and there is hardly ever
        -- one.
        INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority,
                              run_after, max_attempts, created_at)
        SELECT r.* FROM pgqueue_rows(jobs, late, at) AS r;
    EXCEPTION WHEN unique_violation THEN
        WITH inserted AS (
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue,
                                  priority, run_after, max_attempts, created_at)
            SELECT r.* FROM pgqueue_rows(jobs, late, at) AS r ON CONFLICT (job_id) DO NOTHING
            RETURNING job_id
        )
        SELECT coalesce(pg_catalog.jsonb_object_agg(i.job_id, true), '{}') INTO mine
          FROM inserted i;
    END;
    IF mine IS NULL THEN
        IF late IS NULL AND (NOT EXISTS (SELECT FROM job_tombstones) OR NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_to_recordset(jobs) AS i(job_id text)
                 JOIN job_tombstones t ON t.id_hash = pgqueue_id_hash(i.job_id))) THEN
            RETURN;
        END IF;
        SELECT coalesce(pg_catalog.jsonb_object_agg(r.job_id, true), '{}') INTO mine
          FROM pgqueue_rows(jobs, late, at) AS r;
    END IF;
    -- Some jobs are late, or their ids were known, perhaps by a tombstone. (Sets are objects: a
    -- plan that does not know how long an array is would join it row by row.) After the insert, not
    -- before: retention may have turned a row into a tombstone while this statement waited for it.
    WITH undone AS (
        DELETE FROM job_logs j
         USING pg_catalog.jsonb_object_keys(mine) AS m(job_id), job_tombstones t
         WHERE j.job_id = m.job_id AND t.id_hash = pgqueue_id_hash(m.job_id)
        RETURNING j.job_id
    )
    SELECT coalesce(mine, '{}') - coalesce(pg_catalog.array_agg(u.job_id), '{}') INTO mine
      FROM undone u;
    FOR item IN
        SELECT i.*, k.job_id IS NOT NULL AS known, k.status, k.refusal
          FROM (SELECT n.*, pgqueue_digest(n.job_type, n.owner, n.payload) AS digest,
                       row_number() OVER (PARTITION BY n.job_id ORDER BY n.ord) AS nth
                  FROM pgqueue_items(jobs, at) AS n) AS i
          LEFT JOIN LATERAL pgqueue_known_job(i.job_id, i.digest) AS k ON true
         WHERE NOT (i.nth = 1 AND mine ? i.job_id)
         ORDER BY i.ord
    LOOP
        IF item.known THEN
            RETURN NEXT (item.ord, item.job_id, item.status, false, NULL, item.refusal, NULL, NULL
                        )::pgqueue_bulk_answer;
            CONTINUE;
        END IF;
        answer := pgqueue_admit(
            (SELECT k FROM pg_catalog.unnest(kinds) AS k WHERE k.job_type = item.job_type),
            item.job_id, item.owner, item.payload, item.filled, item.digest, item.queue,
            item.priority, item.run_after, item.max_attempts);
        IF NOT answer.created THEN
            RETURN NEXT (item.ord, answer.job_id, answer.status, false, answer.retry_after,
                         answer.refusal, NULL, NULL)::pgqueue_bulk_answer;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_enqueue_many(jsonb) FROM PUBLIC;
