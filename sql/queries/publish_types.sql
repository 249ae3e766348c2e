-- Writes the declarations of job types and answers with those that were new or changed: the old row
-- (null when new) and the new.
WITH old AS MATERIALIZED (
    SELECT t.* FROM job_types t WHERE t.job_type = ANY (%(job_types)s::text[])
), published AS (
    INSERT INTO job_types AS t (job_type, queue, max_attempts, limit_count, limit_window, user_from,
                                backoff_base, backoff_cap, timeout, depends_on, admin)
    SELECT * FROM unnest(%(job_types)s::text[], %(queues)s::text[], %(max_attempts)s::smallint[],
                         %(limit_counts)s::integer[], %(limit_windows)s::interval[],
                         %(users_from)s::text[], %(backoff_bases)s::interval[],
                         %(backoff_caps)s::interval[], %(timeouts)s::interval[],
                         %(depends_on)s::text[], %(admins)s::boolean[])
             AS n(job_type) ORDER BY n.job_type
    ON CONFLICT (job_type) DO UPDATE
       SET queue = excluded.queue, max_attempts = excluded.max_attempts,
           limit_count = excluded.limit_count, limit_window = excluded.limit_window,
           user_from = excluded.user_from, backoff_base = excluded.backoff_base,
           backoff_cap = excluded.backoff_cap, timeout = excluded.timeout,
           depends_on = excluded.depends_on, admin = excluded.admin, published_at = now()
     WHERE (t.queue, t.max_attempts, t.limit_count, t.limit_window, t.user_from, t.backoff_base,
            t.backoff_cap, t.timeout, t.depends_on, t.admin)
           IS DISTINCT FROM
           (excluded.queue, excluded.max_attempts, excluded.limit_count, excluded.limit_window,
            excluded.user_from, excluded.backoff_base, excluded.backoff_cap, excluded.timeout,
            excluded.depends_on, excluded.admin)
    RETURNING t.*
)
SELECT p.job_type, to_jsonb(o) - 'published_at' AS old, to_jsonb(p) - 'published_at' AS new
  FROM published p LEFT JOIN old o ON o.job_type = p.job_type ORDER BY p.job_type
