-- Enqueues the jobs of callers who know nothing of each other, as pgqueue_enqueue_many() does. It
-- fails where it would have to wait for the open transaction of another session, so that one job
-- does not hold up the others: each of them then goes alone.
CREATE OR REPLACE FUNCTION pgqueue_enqueue_group(jobs jsonb) RETURNS SETOF pgqueue_bulk_answer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgqueue_enqueue_many(jobs);
END
$$;

REVOKE ALL ON FUNCTION pgqueue_enqueue_group(jsonb) FROM PUBLIC;
