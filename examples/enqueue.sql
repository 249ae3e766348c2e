-- Enqueue from any language, inside a transaction of your own:
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f examples/enqueue.sql

BEGIN;
-- [enqueue]
SELECT * FROM enqueue_job('image.resize', '{"image": "a.png", "width": 200}'::jsonb,
                          job_id => 'img-sql-1', user_id => 'u1');
-- [/enqueue]
COMMIT;

-- [ring]
-- After your commit: a worker that sleeps starts at once, and not at its next look.
SELECT ring_doorbell(ARRAY['default']);
-- [/ring]
