-- The smallest id that a row created at that moment can have: with it a creation time becomes a
-- range of the primary key.
CREATE OR REPLACE FUNCTION job_uuid_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(
        int8send((floor(extract(epoch FROM moment) * 1000::numeric)::bigint << 16) | 28672::bigint)
        || decode('8000000000000000', 'hex'), 'hex')::uuid
$$;

REVOKE ALL ON FUNCTION job_uuid_at(timestamptz) FROM PUBLIC;
