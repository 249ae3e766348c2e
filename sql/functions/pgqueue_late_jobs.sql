-- Takes the locks of all users whose jobs are counted, in one order, and answers which jobs are
-- late: those that find no place in the limit of their user if all before them are new. (A set of
-- their numbers, as the keys of an object.)
CREATE OR REPLACE FUNCTION pgqueue_late_jobs(jobs jsonb, at timestamptz) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    bucket bigint;
    late   jsonb;
BEGIN
    FOR bucket IN SELECT DISTINCT pgqueue_limit_lock(i.job_type, i.owner)
                    FROM pgqueue_items(jobs, at) AS i
                   WHERE i.limit_count IS NOT NULL ORDER BY 1 LOOP
        PERFORM pg_catalog.pg_advisory_xact_lock(bucket);
    END LOOP;
    -- In a statement of its own: it sees what was committed before the locks.
    WITH late_ones AS (
        SELECT n.job_id, pg_catalog.min(n.ord) AS ord
          FROM (SELECT i.ord, i.job_id, i.job_type, i.owner, i.limit_count, i.limit_window,
                       row_number() OVER (PARTITION BY i.job_type, i.owner ORDER BY i.ord) AS nth
                  FROM pgqueue_items(jobs, at) AS i WHERE i.limit_count IS NOT NULL) AS n
         WHERE n.nth > n.limit_count
            OR n.nth + (SELECT count(*) FROM (
                   SELECT FROM job_logs j
                    WHERE j.user_id = n.owner AND j.job_type = n.job_type
                      AND j.created_at > clock_timestamp() - pgqueue_span(n.limit_window)
                    LIMIT n.limit_count) AS used) > n.limit_count
         GROUP BY n.job_id
    )
    -- A job with the id of a late one before it is late too: if that one is refused, it is new.
    SELECT pg_catalog.jsonb_object_agg(i.ord, true) INTO late
      FROM late_ones l JOIN pgqueue_items(jobs, at) AS i ON i.job_id = l.job_id AND i.ord >= l.ord;
    RETURN late;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_late_jobs(jsonb, timestamptz) FROM PUBLIC;
