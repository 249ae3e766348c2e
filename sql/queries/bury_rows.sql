-- Removes rows that prune_jobs has locked, leaving a tombstone for each, and answers with those
-- that are gone. Its ended_at is the moment of the removal: until then the row itself knew the id,
-- and KEEP_IDS counts from there.
WITH gone AS (
    DELETE FROM job_logs j WHERE j.id = ANY (%(ids)s::uuid[])
    RETURNING j.id, j.job_id, j.payload_digest, j.status
), remembered AS (
    INSERT INTO job_tombstones (id_hash, digest, outcome, ended_at)
    SELECT pgqueue_id_hash(g.job_id), g.payload_digest, g.status, now() FROM gone g ORDER BY 1
    ON CONFLICT (id_hash) DO NOTHING
)
SELECT g.id FROM gone g
