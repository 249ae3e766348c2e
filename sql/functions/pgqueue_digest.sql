-- What "the same job again" means: equal type, user and payload as the caller sent it. jsonb has
-- one spelling for each value, except for zeros at the end of a fraction: 1.0 is 1. Strings are
-- skipped as a whole, so that what looks like a number inside them is kept.
CREATE OR REPLACE FUNCTION pgqueue_digest(job_type text, user_id text, payload jsonb) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    said text := payload;
BEGIN
    IF said ~ $re$[.][0-9]*0([],}]|$)$re$ THEN
        said := pg_catalog.regexp_replace(
            said, $re$("(?:[^"\\]|\\.)*")|(?:[.]0+|([.][0-9]*[1-9])0+)(?=[],}]|$)$re$,
            $re$\1\2$re$, 'g');
    END IF;
    RETURN pg_catalog.sha256(pg_catalog.convert_to(
        job_type || pg_catalog.chr(10) || coalesce(user_id, '') || pg_catalog.chr(10) || said,
        'UTF8'));
END
$$;

REVOKE ALL ON FUNCTION pgqueue_digest(text, text, jsonb) FROM PUBLIC;
