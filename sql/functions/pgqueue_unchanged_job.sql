-- The answer about a job that is not in the state that an operator's function needs.
CREATE OR REPLACE FUNCTION pgqueue_unchanged_job(job_id text, expected text) RETURNS job_change
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT (j.job_id, j.status, false,
                 pg_catalog.format('Job is %s, not %s', j.status, pgqueue_unchanged_job.expected)
                )::job_change
           FROM job_logs j WHERE j.job_id = pgqueue_unchanged_job.job_id),
        (pgqueue_unchanged_job.job_id, NULL, false, 'Job not found')::job_change)
$$;

REVOKE ALL ON FUNCTION pgqueue_unchanged_job(text, text) FROM PUBLIC;
