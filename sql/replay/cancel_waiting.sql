-- Cancels waiting jobs of one type that were enqueued by mistake, oldest first, at most 10,000.
-- What runs is left alone, and what is cancelled keeps its id and its place in a limit;
-- replay_job('ID') brings a job back.
--
-- Put type and age in below and run this: it shows what waits, cancels it, and undoes that. Then
-- write COMMIT for ROLLBACK at the end and run it again. Pause the queue first (SELECT
-- pause_queue('default', true)) if workers are emptying it.
BEGIN;
SET LOCAL toolbox.job_type = 'user.signin.notification';
SET LOCAL toolbox.ago = '1 hour';

SELECT j.queue, j.status, count(*) AS jobs, min(j.created_at) AS first, max(j.created_at) AS last
  FROM job_logs j
 WHERE j.processed_at IS NULL AND j.status IN ('enqueued', 'failed')
   AND j.job_type = current_setting('toolbox.job_type')
   AND j.created_at > now() - current_setting('toolbox.ago')::interval
 GROUP BY j.queue, j.status;

SELECT count(*) FILTER (WHERE c.changed) AS cancelled
  FROM (SELECT j.job_id FROM job_logs j
         WHERE j.processed_at IS NULL AND j.status IN ('enqueued', 'failed')
           AND j.job_type = current_setting('toolbox.job_type')
           AND j.created_at > now() - current_setting('toolbox.ago')::interval
         ORDER BY j.id LIMIT 10000 FOR NO KEY UPDATE SKIP LOCKED) AS mistaken
 CROSS JOIN LATERAL cancel_job(mistaken.job_id) AS c;

ROLLBACK;
