-- The dead-letter queue under a filter; a null parameter matches every job. error is a part of the
-- error text, in upper or lower case.
CREATE OR REPLACE FUNCTION dead_jobs(
    job_type text DEFAULT NULL, user_id text DEFAULT NULL, error text DEFAULT NULL,
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, job_ids text[] DEFAULT NULL
) RETURNS SETOF job_logs LANGUAGE sql STABLE AS $$
    SELECT j.* FROM job_logs j
     WHERE j.dead_at IS NOT NULL
       AND (dead_jobs.job_type IS NULL OR j.job_type = dead_jobs.job_type)
       AND (dead_jobs.user_id IS NULL OR j.user_id = dead_jobs.user_id)
       AND (dead_jobs.error IS NULL
            OR position(lower(dead_jobs.error) IN lower(coalesce(j.error, ''))) > 0)
       AND (dead_jobs.since IS NULL OR j.dead_at >= dead_jobs.since)
       AND (dead_jobs.until IS NULL OR j.dead_at < dead_jobs.until)
       AND (dead_jobs.job_ids IS NULL OR j.job_id = ANY (dead_jobs.job_ids))
$$;

REVOKE ALL ON FUNCTION dead_jobs(
    text, text, text, timestamptz, timestamptz, text[]
) FROM PUBLIC;
