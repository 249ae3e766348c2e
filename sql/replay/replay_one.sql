-- Sends one dead or cancelled job back to its queue, with attempts from 0. Its history stays.
--
-- Put the job in below and run this: it shows the job, sends it back, shows the answer, and undoes
-- that. When it is the right one, write COMMIT for ROLLBACK at the end and run it again. `changed`
-- false: `message` says why.
BEGIN;
SET LOCAL toolbox.job_id = 'signin-u1-1';

SELECT j.job_id, j.job_type, j.user_id, j.status, j.attempt_count, j.error, j.created_at, j.dead_at
  FROM job_logs j WHERE j.job_id = current_setting('toolbox.job_id');

-- With a payload of your own instead of the old one, which then stays in the history:
-- replay_job('ID', '{"...": "..."}'::jsonb)
SELECT * FROM replay_job(current_setting('toolbox.job_id'));

ROLLBACK;
