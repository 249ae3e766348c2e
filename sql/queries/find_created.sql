-- After a lost reply: which of these jobs are younger than the call that enqueues them. Such a job
-- is the call's own (or that of a caller at the same moment), although the second try found it.
SELECT job_id FROM job_logs
 WHERE job_id = ANY (%(job_ids)s::text[]) AND created_at >= clock_timestamp() - %(age)s
