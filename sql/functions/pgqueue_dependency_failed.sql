-- Notes that these jobs failed on a dependency, and opens its circuit breaker when there are enough
-- of them, or at once when `down` says that the dependency is known to be broken. succeeded_ago:
-- when the caller last saw a job succeed. Answers the state that follows.
CREATE OR REPLACE FUNCTION pgqueue_dependency_failed(
    dependency text, jobs uuid[], down boolean, reason text, retry_after interval,
    succeeded_ago interval
) RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    was    job_dependencies;
    pause  interval := CASE WHEN down THEN interval '5 s' ELSE interval '1 s' END;
    fresh  uuid[];
    recent jsonb;
BEGIN
    INSERT INTO job_dependencies (dependency) VALUES (pgqueue_dependency_failed.dependency)
    ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM job_dependencies d
     WHERE d.dependency = pgqueue_dependency_failed.dependency FOR UPDATE;
    IF was.state <> 'closed' THEN RETURN was.state; END IF;
    -- An attempt that began before the breaker last closed says nothing about the dependency now.
    SELECT array_agg(n) INTO fresh FROM unnest(jobs) AS n
     WHERE NOT EXISTS (SELECT FROM job_logs j WHERE j.id = n AND j.started_at < was.closed_at
                          AND was.closed_at <= now());
    IF fresh IS NULL AND jobs <> '{}' THEN RETURN was.state; END IF;
    SELECT jsonb_object_agg(f.job, f.at) INTO recent
      FROM (SELECT o.key AS job, o.value AS at FROM jsonb_each_text(was.failures) AS o
             WHERE pgqueue_moment(o.value) > now() - least(interval '10 s', succeeded_ago)
             UNION SELECT n::text, to_jsonb(now()) #>> '{}' FROM unnest(fresh) AS n) AS f;
    IF NOT down AND (SELECT count(*) FROM jsonb_object_keys(recent)) < 5 THEN
        UPDATE job_dependencies d SET failures = recent WHERE d.dependency = was.dependency;
        RETURN 'closed';
    END IF;
    UPDATE job_dependencies d
       SET state = 'open', failures = '{}', reason = pgqueue_dependency_failed.reason,
           opened_at = now(), changed_at = now(), probe_pause = pause,
           probe_at = now() + greatest(pause, retry_after)
     WHERE d.dependency = was.dependency;
    RETURN 'opened';
END
$$;

REVOKE ALL ON FUNCTION pgqueue_dependency_failed(
    text, uuid[], boolean, text, interval, interval
) FROM PUBLIC;
