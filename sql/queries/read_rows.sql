-- Rows that prune_jobs has locked, whole, for the archive.
SELECT j.* FROM job_logs j WHERE j.id = ANY (%(ids)s::uuid[])
