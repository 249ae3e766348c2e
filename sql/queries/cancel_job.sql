-- Ends a waiting job, or the lease of a running one.
SELECT * FROM cancel_job(%(job_id)s)
