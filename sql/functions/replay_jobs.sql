-- Sends ended jobs (dlq, cancelled) back to their queues, the n-th after n spacings, with attempts
-- from 0. Their history stays; a payload given here replaces the old one, which stays in the
-- history. Returns how many.
CREATE OR REPLACE FUNCTION replay_jobs(
    ids uuid[], spacing interval DEFAULT '0 s', payload jsonb DEFAULT NULL
) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    replayed integer;
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT j.id FROM job_logs j WHERE j.id = ANY (ids) AND j.status IN ('dlq', 'cancelled')
         ORDER BY j.id FOR NO KEY UPDATE
    ), placed AS (
        SELECT l.id, row_number() OVER (ORDER BY i.ord) - 1 AS nth
          FROM locked l JOIN pg_catalog.unnest(ids) WITH ORDINALITY AS i(id, ord) ON i.id = l.id
    )
    UPDATE job_logs j
       SET status = 'enqueued', attempt_count = 0,
           run_after = clock_timestamp() + spacing * p.nth::float8, processed_at = NULL,
           dead_at = NULL, error = NULL, stack_trace = NULL, progress = NULL, progress_note = NULL,
           -- Whether an earlier attempt had its effect: the operator who replays has decided.
           intent_at = NULL,
           payload = coalesce(replay_jobs.payload, j.payload),
           history = pgqueue_history(j.history,
               pg_catalog.jsonb_build_object('event', 'replayed', 'at', pgqueue_time(now()),
                                             'was', j.status, 'error', j.error)
               || CASE WHEN replay_jobs.payload IS NULL THEN '{}'
                       ELSE pg_catalog.jsonb_build_object('payload', j.payload) END)
      FROM placed p WHERE j.id = p.id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END
$$;

REVOKE ALL ON FUNCTION replay_jobs(uuid[], interval, jsonb) FROM PUBLIC;
