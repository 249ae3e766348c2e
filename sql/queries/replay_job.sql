-- Sends one ended job back to its queue; the queue is for the doorbell.
SELECT c.*, (SELECT j.queue FROM job_logs j WHERE j.job_id = c.job_id) AS queue
  FROM replay_job(%(job_id)s, %(payload)s::jsonb) AS c
