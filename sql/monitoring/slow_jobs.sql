-- Where the time goes, for each job type, among the 20,000 newest jobs that completed. Seconds.
--
-- wait_* is from due to the last claim, work_* from that claim to the end. Long waits and short
-- work: too few workers or slots (PGQUEUE_QUEUES), or a queue that was paused. Long work: the
-- handler, or what it depends on; a p99 near the type's timeout means that attempts are being cut
-- off.
SELECT r.job_type, count(*) AS jobs,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY r.wait)::numeric, 3) AS wait_p50_s,
       round(percentile_cont(0.99) WITHIN GROUP (ORDER BY r.wait)::numeric, 3) AS wait_p99_s,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY r.work)::numeric, 3) AS work_p50_s,
       round(percentile_cont(0.99) WITHIN GROUP (ORDER BY r.work)::numeric, 3) AS work_p99_s,
       round(max(r.work)::numeric, 3) AS work_max_s,
       (SELECT extract(epoch FROM t.timeout)::integer FROM job_types t
         WHERE t.job_type = r.job_type) AS timeout_s
  FROM (SELECT j.job_type, extract(epoch FROM j.started_at - j.run_after) AS wait,
               extract(epoch FROM j.processed_at - j.started_at) AS work
          FROM (SELECT * FROM job_logs n WHERE n.id < job_uuid_at(now() + interval '1 day')
                 ORDER BY n.id DESC LIMIT 20000) AS j
         WHERE j.status = 'completed' AND j.started_at IS NOT NULL) AS r
 GROUP BY r.job_type ORDER BY work_p99_s DESC NULLS LAST;
