-- Sends back what died in a certain time, an outage for instance: the longest dead first, 50 a
-- second, at most 10,000.
--
-- Put the time in below and run this: it shows what died then, by minute, sends it back, and undoes
-- that. Then write COMMIT for ROLLBACK at the end and run it again. For more than 10,000 run it
-- again when those are through. Jobs that had left the queue for good reason (a malformed address)
-- die again at once, and nothing is lost.
BEGIN;
SET LOCAL toolbox.ago = '1 hour';

SELECT date_trunc('minute', d.dead_at) AS minute, count(*) AS jobs,
       count(DISTINCT d.error) AS errors, min(d.error) AS sample_error
  FROM dead_jobs(since => now() - current_setting('toolbox.ago')::interval) AS d GROUP BY 1
 ORDER BY 1;

SELECT replay_jobs(ARRAY(SELECT d.id FROM dead_jobs(
                             since => now() - current_setting('toolbox.ago')::interval) AS d
                          ORDER BY d.dead_at, d.id LIMIT 10000), spacing => '20 ms') AS replayed;

ROLLBACK;
