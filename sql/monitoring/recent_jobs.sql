-- The ten newest jobs. The twin of SELECT * FROM job_logs ORDER BY created_at DESC LIMIT 10, by the
-- primary key: ids are made in the order of time, so this reads ten rows, where the other one sorts
-- the table.
--
-- Nothing here although people use the service: the producer does not reach the database, or its
-- transaction never commits. All of them `enqueued` and minutes old: no worker; see queues.sql.
SELECT j.job_id, j.job_type, j.user_id, j.status, j.attempt_count, j.created_at, j.run_after,
       j.processed_at, j.error
  FROM job_logs j
 -- Jobs of the old service have random ids, and would come first.
 WHERE j.id < job_uuid_at(now() + interval '1 day')
 ORDER BY j.id DESC LIMIT 10;
