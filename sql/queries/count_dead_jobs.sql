-- How many dead jobs pass the filter; counting stops at 100,000, for it must answer during an
-- incident too.
SELECT count(*) FROM (
    SELECT FROM dead_jobs(%(job_type)s::text, %(user_id)s::text, %(error)s::text,
                          %(since)s::timestamptz, %(until)s::timestamptz,
                          %(job_ids)s::text[]) LIMIT 100000
) AS counted
