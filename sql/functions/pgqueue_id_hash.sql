-- How a tombstone names a job id.
CREATE OR REPLACE FUNCTION pgqueue_id_hash(job_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(pg_catalog.sha256(pg_catalog.convert_to(job_id, 'UTF8')) FOR 16)
$$;

REVOKE ALL ON FUNCTION pgqueue_id_hash(text) FROM PUBLIC;
