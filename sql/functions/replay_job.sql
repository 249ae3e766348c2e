-- Sends one ended job (dlq, cancelled) back to its queue, as replay_jobs() does. Raises nothing:
-- the answer says whether the job was changed, or why not.
CREATE OR REPLACE FUNCTION replay_job(job_id text, payload jsonb DEFAULT NULL) RETURNS job_change
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF replay_jobs(ARRAY(SELECT j.id FROM job_logs j WHERE j.job_id = replay_job.job_id),
                   interval '0 s', replay_job.payload) > 0 THEN
        RETURN (replay_job.job_id, 'enqueued', true, 'Job enqueued again')::job_change;
    END IF;
    RETURN pgqueue_unchanged_job(replay_job.job_id, 'dlq or cancelled'::text);
END
$$;

REVOKE ALL ON FUNCTION replay_job(text, jsonb) FROM PUBLIC;
