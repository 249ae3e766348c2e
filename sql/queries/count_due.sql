-- Whether anything is running or due; for tests that wait until all work is done.
SELECT count(*) FROM (
    SELECT FROM job_logs j WHERE j.processed_at IS NULL AND (j.status = 'processing' OR j.run_after <= clock_timestamp()) LIMIT 1
) AS due
