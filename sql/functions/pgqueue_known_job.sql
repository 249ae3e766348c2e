-- The answer for an id that is taken, by a row or by the tombstone that retention left for it; no
-- row for an id that is free.
CREATE OR REPLACE FUNCTION pgqueue_known_job(job_id text, digest bytea)
RETURNS SETOF pgqueue_answer LANGUAGE sql STABLE AS $$
    SELECT pgqueue_known_job.job_id,
           CASE WHEN k.digest = pgqueue_known_job.digest THEN k.status END, false, NULL::interval,
           CASE WHEN k.digest <> pgqueue_known_job.digest THEN 'duplicate_payload' END, NULL::text
      FROM (SELECT j.status, j.payload_digest AS digest
              FROM job_logs j WHERE j.job_id = pgqueue_known_job.job_id
            UNION ALL
            SELECT t.outcome, t.digest
              FROM job_tombstones t WHERE t.id_hash = pgqueue_id_hash(pgqueue_known_job.job_id)
           ) AS k
     LIMIT 1
$$;

REVOKE ALL ON FUNCTION pgqueue_known_job(text, bytea) FROM PUBLIC;
