-- A window in seconds. An interval of a day is as long as the session's time zone says, and every
-- caller sets its own.
CREATE OR REPLACE FUNCTION pgqueue_span(span interval) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.make_interval(secs => extract(epoch FROM span)::float8)
$$;

REVOKE ALL ON FUNCTION pgqueue_span(interval) FROM PUBLIC;
