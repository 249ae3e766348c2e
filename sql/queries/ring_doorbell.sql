-- Wakes sleeping workers of these queues, as many as there are jobs. Commits without waiting for
-- the disk.
SELECT ring_doorbell(%(queues)s::text[], %(jobs)s)
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick
