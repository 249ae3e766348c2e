-- Takes a job out of the dead-letter queue for good.
SELECT * FROM delete_dead_job(%(job_id)s)
