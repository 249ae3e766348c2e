-- Who is near the limit of a job type (four fifths of it or more), most first, among the 50,000
-- newest jobs.
--
-- One user at the limit: that user is answered 429 until next_place; a browser that signs in over
-- and over, or an attacker who guesses. Many users at the limit: the limit is too low for what
-- people do (PGQUEUE_SIGNIN_LIMIT), or a producer posts everything twice: let it send a jobId.
SELECT j.user_id, j.job_type, count(*) AS jobs, t.limit_count AS allowed,
       t.limit_window AS "window",
       now() + pgqueue_limit_wait(j.job_type, j.user_id, t.limit_count, t.limit_window)
       AS next_place
  FROM (SELECT n.user_id, n.job_type, n.created_at FROM job_logs n
         WHERE n.id < job_uuid_at(now() + interval '1 day') ORDER BY n.id DESC LIMIT 50000) AS j
  JOIN job_types t ON t.job_type = j.job_type AND t.limit_count IS NOT NULL
 WHERE j.created_at > now() - t.limit_window
 GROUP BY j.user_id, j.job_type, t.limit_count, t.limit_window
HAVING count(*) >= 0.8 * t.limit_count
 ORDER BY count(*)::numeric / t.limit_count DESC, j.user_id LIMIT 100;
