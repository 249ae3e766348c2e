-- Takes dead jobs with a certain text in their error out of the dead-letter queue for good, the
-- longest dead first, at most 10,000: they become cancelled. Neither their ids nor their places in
-- a limit come free; retention removes the rows later.
--
-- Put the text in below and run this: it shows what would go, takes it out, and undoes that. Then
-- write COMMIT for ROLLBACK at the end and run it again. For those that could still be done there
-- is replay_by_error.sql.
BEGIN;
SET LOCAL toolbox.error = 'invalid address';

SELECT d.job_type, d.error, count(*) AS jobs, min(d.dead_at) AS first, max(d.dead_at) AS last,
       min(d.job_id) AS sample_job_id
  FROM dead_jobs(error => current_setting('toolbox.error')) AS d GROUP BY d.job_type, d.error
 ORDER BY jobs DESC LIMIT 20;

SELECT count(*) FILTER (WHERE c.changed) AS discarded
  FROM (SELECT d.job_id FROM dead_jobs(error => current_setting('toolbox.error')) AS d
         ORDER BY d.dead_at, d.id LIMIT 10000) AS hopeless
 CROSS JOIN LATERAL delete_dead_job(hopeless.job_id) AS c;

ROLLBACK;
