-- Replay one dead job, and cancel another:
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f examples/replay.sql

-- [replay]
SELECT job_id, job_type, attempt_count, error FROM job_logs WHERE status = 'dlq' ORDER BY created_at DESC;
SELECT * FROM replay_job('img-1');
SELECT * FROM replay_job('img-2', '{"image": "a.png", "width": 200}');
-- [/replay]
-- [cancel]
SELECT * FROM cancel_job('img-3');
-- [/cancel]
