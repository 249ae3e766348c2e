-- Jobs whose last attempt failed and that will be tried again, newest first. The twin of SELECT *
-- FROM job_logs WHERE status = 'failed' ORDER BY created_at DESC, by the index over live jobs: it
-- reads what waits or runs, never what has ended.
--
-- A few are everyday life: a mail server that was busy. Many with one error: retrying_jobs.sql
-- counts them. Remove the cause: they run again by themselves at run_after.
SELECT j.job_id, j.job_type, j.user_id, j.attempt_count, j.max_attempts, j.created_at, j.run_after,
       j.error
  FROM job_logs j
 WHERE j.processed_at IS NULL AND j.status = 'failed'
 ORDER BY j.created_at DESC LIMIT 1000;
