-- The payload with the members that the server fills in. The member that names the user stays as
-- the caller sent it.
CREATE OR REPLACE FUNCTION pgqueue_stored_payload(payload jsonb, filled jsonb, user_from text)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(payload) = 'object'
                     AND pg_catalog.jsonb_typeof(filled) = 'object'
                THEN payload || CASE WHEN user_from IS NULL THEN filled ELSE filled - user_from END
                ELSE payload END
$$;

REVOKE ALL ON FUNCTION pgqueue_stored_payload(jsonb, jsonb, text) FROM PUBLIC;
