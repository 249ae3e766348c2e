-- Takes a job out of the dead-letter queue for good. It becomes cancelled, so that its id and its
-- place in a limit stay taken. Raises nothing: the answer says whether the job was changed, or why
-- not.
CREATE OR REPLACE FUNCTION delete_dead_job(job_id text) RETURNS job_change
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE job_logs j SET status = 'cancelled', dead_at = NULL
     WHERE j.job_id = delete_dead_job.job_id AND j.status = 'dlq';
    IF FOUND THEN
        RETURN (delete_dead_job.job_id, 'cancelled', true, 'Job deleted')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(delete_dead_job.job_id, 'dlq'::text);
END
$$;

REVOKE ALL ON FUNCTION delete_dead_job(text) FROM PUBLIC;
