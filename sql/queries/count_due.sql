-- How many jobs of these types are running or due; for tests that wait until all work is done.
SELECT count(*) FROM job_logs j
 WHERE j.processed_at IS NULL AND j.job_type = ANY (%(types)s)
   AND (j.status = 'processing' OR j.run_after <= clock_timestamp())
