-- Null when one more job is within the limit, else how long until it is. Reads as many index
-- entries as the limit allows, however many jobs the user has.
CREATE OR REPLACE FUNCTION pgqueue_limit_wait(
    job_type text, user_id text, limit_count integer, limit_window interval
) RETURNS interval LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (
        SELECT j.created_at + pgqueue_span(pgqueue_limit_wait.limit_window) - clock_timestamp()
          FROM job_logs j
         WHERE j.user_id = pgqueue_limit_wait.user_id AND j.job_type = pgqueue_limit_wait.job_type
           AND j.created_at > clock_timestamp() - pgqueue_span(pgqueue_limit_wait.limit_window)
         ORDER BY j.created_at DESC
        OFFSET pgqueue_limit_wait.limit_count - 1 LIMIT 1);
END
$$;

REVOKE ALL ON FUNCTION pgqueue_limit_wait(text, text, integer, interval) FROM PUBLIC;
