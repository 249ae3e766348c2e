-- Takes a process out of the registry, and those that have been silent for a day.
DELETE FROM job_workers w WHERE w.id = %(worker)s OR w.seen_at < now() - interval '1 day'
