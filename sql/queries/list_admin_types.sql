-- The job types that only administrators may enqueue, see or cancel over HTTP.
SELECT t.job_type FROM job_types t WHERE t.admin
