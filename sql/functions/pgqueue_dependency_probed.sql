-- Ends a probe: 'alive' closes the breaker, 'down' makes the next probe wait twice as long (at most
-- 15 s), 'unclear' (the job never reached the dependency) lets the next one start at once. A probe
-- that another one has replaced decides nothing. Answers the state that follows.
CREATE OR REPLACE FUNCTION pgqueue_dependency_probed(
    dependency text, probe uuid, lease bigint, worker text, verdict text, reason text,
    retry_after interval
) RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now_in text;
BEGIN
    UPDATE job_dependencies d
       SET state = CASE verdict WHEN 'alive' THEN 'closed' ELSE 'open' END, changed_at = now(),
           probe_id = NULL, probe_lease = NULL, probe_worker = NULL, failures = '{}',
           opened_at = CASE verdict WHEN 'alive' THEN NULL ELSE d.opened_at END,
           closed_at = CASE verdict WHEN 'alive' THEN now() ELSE d.closed_at END,
           reason = CASE verdict WHEN 'down' THEN pgqueue_dependency_probed.reason
                                 ELSE d.reason END,
           probe_pause = CASE verdict WHEN 'down' THEN least(d.probe_pause * 2, interval '15 s')
                                      ELSE d.probe_pause END,
           probe_at = CASE verdict
               WHEN 'down' THEN now() + greatest(least(d.probe_pause * 2, interval '15 s'),
                                                 retry_after)
               WHEN 'unclear' THEN now() END
     WHERE d.dependency = pgqueue_dependency_probed.dependency AND d.state = 'half_open'
       AND d.probe_id = probe AND d.probe_lease = pgqueue_dependency_probed.lease
       AND d.probe_worker = worker
    RETURNING d.state INTO now_in;
    RETURN coalesce(now_in, (SELECT d.state FROM job_dependencies d
                              WHERE d.dependency = pgqueue_dependency_probed.dependency));
END
$$;

REVOKE ALL ON FUNCTION pgqueue_dependency_probed(
    text, uuid, bigint, text, text, text, interval
) FROM PUBLIC;
