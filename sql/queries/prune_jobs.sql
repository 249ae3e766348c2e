-- Chooses and locks a batch of ended jobs that are past their time, in the order of their ids
-- (which is that of their creation), beginning behind a given id. Nothing inside the window of its
-- type's limit is chosen, for the window counts these rows. whole: read to the end of the table;
-- rows that were adopted from the old service have random ids, and lie there.
SELECT j.id, j.job_id FROM job_logs j LEFT JOIN job_types t ON t.job_type = j.job_type
 WHERE j.id > %(after)s
   AND (%(whole)s
        OR j.id < job_uuid_at(now() - least(%(keep_completed)s::interval, %(keep_dlq)s::interval)))
   AND j.processed_at < now() - CASE j.status WHEN 'dlq' THEN %(keep_dlq)s::interval
                                            ELSE %(keep_completed)s::interval END
   AND j.created_at < now() - coalesce(pgqueue_span(t.limit_window), '0 s')
 ORDER BY j.id LIMIT %(batch)s FOR UPDATE OF j SKIP LOCKED
