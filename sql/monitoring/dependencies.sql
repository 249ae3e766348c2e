-- A row for each dependency that ever gave trouble: what its circuit breaker does.
--
-- state         closed: it works. open: its job types are not claimed, their jobs wait and burn no
--               attempt. half_open: one of them is being tried
-- open_s        for how long it has not been closed
-- next_probe_s  in how many seconds the next job is tried; below 0: as soon as one is due
-- failures      while closed: jobs that failed on it lately without one succeeding (five within
--               10 s open it)
-- job_types     the types that depend on it
--
-- open: repair what reason says. Nothing else is to be done: the next probe that succeeds closes
-- it, and its jobs run.
SELECT d.dependency, d.state, d.reason, d.opened_at,
       round(extract(epoch FROM now() - d.opened_at), 3)::float8 AS open_s,
       CASE d.state WHEN 'open'
            THEN round(extract(epoch FROM d.probe_at - now()), 3)::float8 END AS next_probe_s,
       (SELECT count(*) FROM jsonb_object_keys(d.failures)) AS failures,
       ARRAY(SELECT t.job_type FROM job_types t WHERE t.depends_on = d.dependency
              ORDER BY 1) AS job_types
  FROM job_dependencies d
 ORDER BY d.state = 'closed', d.dependency;
