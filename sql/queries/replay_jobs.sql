-- Sends dead jobs that pass the filter back to their queues, the longest dead first, a spacing
-- apart; at most so many at once.
SELECT replay_jobs(ARRAY(
    SELECT d.id
      FROM dead_jobs(%(job_type)s::text, %(user_id)s::text, %(error)s::text, %(since)s::timestamptz,
                               %(until)s::timestamptz, %(job_ids)s::text[]) AS d
     ORDER BY d.dead_at, d.id LIMIT %(limit)s
), %(spacing)s::interval)
