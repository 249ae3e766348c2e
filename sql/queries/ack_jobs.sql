-- Completes attempts, those whose lease still holds; the caller sees from their number whether
-- others have been taken away. The ids come sorted and the plan is a nested loop over them
-- (set_session.sql), so that rows are locked in their order without a lock for each beforehand;
-- behind a pooler, where the plan cannot be pinned, a deadlock is repeated.
UPDATE job_logs j
   SET status = 'completed', processed_at = now(), lease_until = NULL, error = NULL,
       stack_trace = NULL, intent_at = NULL,
       receipt = a.receipt
  FROM unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(receipts)s::text[]) AS a(id, lease, receipt)
 WHERE j.id = a.id AND j.lease = a.lease AND j.locked_by = %(worker)s AND j.status = 'processing'
