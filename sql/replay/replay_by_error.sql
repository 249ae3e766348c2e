-- Sends back the dead jobs with a certain text in their error, the longest dead first, 50 a second,
-- at most 10,000.
--
-- Put the text in below (in any case; monitoring/dead_letter_errors.sql lists what there is) and
-- run this: it shows how many there are, of which types, sends them back, and undoes that. Then
-- write COMMIT for ROLLBACK at the end and run it again. For more than 10,000 run it again when
-- those are through.
BEGIN;
SET LOCAL toolbox.error = 'connection refused';

SELECT d.job_type, count(*) AS jobs, min(d.dead_at) AS first, max(d.dead_at) AS last,
       min(d.job_id) AS sample_job_id
  FROM dead_jobs(error => current_setting('toolbox.error')) AS d GROUP BY d.job_type
 ORDER BY jobs DESC;

SELECT replay_jobs(ARRAY(SELECT d.id FROM dead_jobs(error => current_setting('toolbox.error')) AS d
                          ORDER BY d.dead_at, d.id LIMIT 10000), spacing => '20 ms') AS replayed;

ROLLBACK;
