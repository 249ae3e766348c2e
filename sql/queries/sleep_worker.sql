-- Puts up the flag that asks for the doorbell. Commits without waiting for the disk: losing the
-- flag costs one interval.
UPDATE job_workers w SET asleep = true
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick
 WHERE w.id = %(worker)s AND NOT w.asleep
