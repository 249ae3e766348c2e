-- The dead-letter queue, newest first. The twin of SELECT * FROM job_logs WHERE status = 'dlq'
-- ORDER BY created_at DESC, by the index over dead jobs: it takes as long as there are dead jobs,
-- however many others the table has.
--
-- No worker tries these again by itself. dead_letter_errors.sql groups them by error. Fix the
-- cause, then send them back with sql/replay/, `pgqueue dlq retry`, or
-- SELECT * FROM replay_job('ID').
SELECT j.job_id, j.job_type, j.user_id, j.attempt_count, j.created_at, j.dead_at, j.error
  FROM job_logs j
 WHERE j.dead_at IS NOT NULL
 ORDER BY j.dead_at DESC, j.id DESC LIMIT 1000;
