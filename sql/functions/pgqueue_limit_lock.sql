-- The advisory lock under which the jobs of one user and type are counted: one of 1,024 for each
-- type.
CREATE OR REPLACE FUNCTION pgqueue_limit_lock(job_type text, user_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (pg_catalog.hashtext('pgqueue ' || job_type)::bigint << 32)
           | (pg_catalog.hashtext(user_id) & 1023)::bigint
$$;

REVOKE ALL ON FUNCTION pgqueue_limit_lock(text, text) FROM PUBLIC;
