-- A time as the history of a job and all programs write it: UTC, three decimals.
CREATE OR REPLACE FUNCTION pgqueue_time(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

REVOKE ALL ON FUNCTION pgqueue_time(timestamptz) FROM PUBLIC;
