-- Sends back the dead jobs of one type, the longest dead first, 50 a second, at most 10,000.
--
-- Put the type in below and run this: it shows how many there are and why they died, sends them
-- back, and undoes that. Then write COMMIT for ROLLBACK at the end and run it again. For more than
-- 10,000 run it again when those are through.
BEGIN;
SET LOCAL toolbox.job_type = 'user.signin.notification';

SELECT left(d.error, 100) AS error, count(*) AS jobs, min(d.dead_at) AS first,
       max(d.dead_at) AS last
  FROM dead_jobs(job_type => current_setting('toolbox.job_type')) AS d GROUP BY 1
 ORDER BY jobs DESC LIMIT 20;

SELECT replay_jobs(ARRAY(SELECT d.id
                           FROM dead_jobs(job_type => current_setting('toolbox.job_type')) AS d
                          ORDER BY d.dead_at, d.id LIMIT 10000), spacing => '20 ms') AS replayed;

ROLLBACK;
