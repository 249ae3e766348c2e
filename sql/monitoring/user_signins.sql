-- One user's sign-in mails in the last hour, by the index over users. The twin of SELECT COUNT(*)
-- FROM job_logs WHERE user_id = 'user-123' AND job_type = 'user.signin.notification' AND created_at
-- > NOW() - INTERVAL '1 hour'. Put the user in below.
--
-- left_over is how many more the limit lets in now; at 0 the next request is answered 429 until
-- next_place. That is the rule working: a browser signs in again and again, or an attacker has the
-- user's password. limits.sql lists all such users.
WITH asked (user_id, job_type) AS (
    VALUES ('user-123', 'user.signin.notification')
)
SELECT a.user_id, count(j.id) AS jobs, max(t.limit_count) AS allowed,
       greatest(max(t.limit_count) - count(j.id), 0) AS left_over,
       min(j.created_at) AS first, max(j.created_at) AS last,
       now() + pgqueue_limit_wait(a.job_type, a.user_id, max(t.limit_count), max(t.limit_window))
       AS next_place
  FROM asked a
  LEFT JOIN job_types t ON t.job_type = a.job_type
  LEFT JOIN job_logs j ON j.user_id = a.user_id AND j.job_type = a.job_type
                      AND j.created_at > now() - coalesce(t.limit_window, interval '1 hour')
 GROUP BY a.user_id, a.job_type;
