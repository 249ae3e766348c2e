-- Sends one ended job back to its queue.
SELECT * FROM replay_job(%(job_id)s, %(payload)s::jsonb)
