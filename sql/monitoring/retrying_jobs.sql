-- What goes wrong now: jobs that wait for another attempt, grouped by type and the beginning of
-- their error, most first.
--
-- One error over many users: what the jobs depend on (the mail server) is unwell; they come again
-- by themselves. One job with many attempts: something about that job; next_attempt says when it is
-- tried again, attempts_left how often before it is dead.
SELECT j.job_type, left(split_part(coalesce(j.error, '(none)'), E'\n', 1), 80) AS error,
       count(*) AS jobs,
       count(DISTINCT j.user_id) AS users, min(j.max_attempts - j.attempt_count) AS attempts_left,
       min(j.run_after) AS next_attempt, max(j.run_after) AS last_attempt,
       min(j.job_id) AS sample_job_id
  FROM job_logs j
 WHERE j.processed_at IS NULL AND j.status = 'failed'
 GROUP BY 1, 2 ORDER BY jobs DESC LIMIT 100;
