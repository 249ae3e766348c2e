-- Which of these acks went through although their reply was lost: the lease is still ours, and the
-- attempt is over. (Every statement that takes a job away ends the lease first, so that this is the
-- work of the ack.)
SELECT j.id, j.lease, j.status FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[]) AS a(id, lease)
  JOIN job_logs j ON j.id = a.id AND j.lease = a.lease AND j.locked_by = %(worker)s
       AND j.status <> 'processing'
