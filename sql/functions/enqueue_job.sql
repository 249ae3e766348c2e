-- Enqueues one job, from any language, inside the caller's own transaction. A job beyond the limit
-- is an answer with retry_after and without status; another payload under the same id is a
-- unique_violation.
CREATE OR REPLACE FUNCTION enqueue_job(
    job_type text, payload jsonb, job_id text DEFAULT NULL, user_id text DEFAULT NULL,
    queue text DEFAULT NULL, priority integer DEFAULT NULL, run_after timestamptz DEFAULT NULL,
    max_attempts integer DEFAULT NULL
) RETURNS job_ticket LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    answer pgqueue_answer := pgqueue_try_enqueue(job_type, payload, job_id, user_id, queue,
                                                 priority, run_after, max_attempts, NULL::jsonb);
BEGIN
    IF answer.refusal = 'duplicate_payload' THEN
        RAISE unique_violation USING CONSTRAINT = 'unique_job_id', TABLE = 'job_logs',
            MESSAGE = pg_catalog.format('Job ID already used with another payload: %s',
                                        answer.job_id);
    END IF;
    RETURN (answer.job_id, answer.status, answer.created, answer.retry_after)::job_ticket;
END
$$;

REVOKE ALL ON FUNCTION enqueue_job(
    text, jsonb, text, text, text, integer, timestamptz, integer
) FROM PUBLIC;
