-- Ends a waiting job at once, and a running one by ending its lease: its worker stops the handler
-- at its next extension. Raises nothing: the answer says whether the job was changed, or why not.
CREATE OR REPLACE FUNCTION cancel_job(job_id text) RETURNS job_change
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE job_logs j
       SET status = 'cancelled', lease = j.lease + 1, lease_until = NULL,
           processed_at = clock_timestamp()
     WHERE j.job_id = cancel_job.job_id AND j.status IN ('enqueued', 'failed', 'processing');
    IF FOUND THEN
        RETURN (cancel_job.job_id, 'cancelled', true, 'Job cancelled')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(cancel_job.job_id, 'waiting or running'::text);
END
$$;

REVOKE ALL ON FUNCTION cancel_job(text) FROM PUBLIC;
