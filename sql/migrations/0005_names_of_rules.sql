-- The name of a CHECK is the error message of whoever writes into job_logs by hand, and says which
-- function does it properly. Some named one that refuses: replay_job for a job that was completed,
-- or that somebody wanted dead or deleted. Renamed only, which reads no row. (Postgres tests them
-- in the order of their names: a live job that is made dlq meets the rule that says cancel_job.)

ALTER TABLE job_logs RENAME CONSTRAINT live_job_has_no_processed_at_use_replay_job
    TO live_job_has_no_processed_at_use_replay_job_unless_completed;
ALTER TABLE job_logs RENAME CONSTRAINT dead_at_goes_with_dlq_use_replay_job
    TO only_workers_fill_dlq_leave_it_by_replay_job_or_delete_dead_job;
ALTER TABLE job_logs RENAME CONSTRAINT lease_goes_with_processing_use_cancel_job
    TO only_workers_start_processing_use_cancel_job_to_end_it;
ALTER TABLE job_logs RENAME CONSTRAINT waiting_job_has_attempts_left_use_replay_job
    TO waiting_job_has_attempts_left_use_replay_job_if_dead;

COMMENT ON COLUMN job_tombstones.ended_at IS 'When the row was removed: from then on the id is known by this alone.';
