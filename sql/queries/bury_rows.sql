-- Removes rows that prune_jobs has locked, leaving a tombstone for each.
WITH gone AS (
    DELETE FROM job_logs j WHERE j.id = ANY (%(ids)s) RETURNING j.job_id, j.payload_digest, j.status, j.processed_at
)
INSERT INTO job_tombstones (id_hash, digest, outcome, ended_at)
SELECT job_id_hash(g.job_id), g.payload_digest, g.status, g.processed_at FROM gone g ORDER BY 1
ON CONFLICT (id_hash) DO NOTHING
