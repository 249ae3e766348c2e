-- A time out of a JSON value that any program may have written; null where it is not a time.
CREATE OR REPLACE FUNCTION pgqueue_moment(text) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN pg_catalog.isfinite($1::timestamptz) THEN $1::timestamptz END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_moment(text) FROM PUBLIC;
