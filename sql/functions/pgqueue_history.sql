-- The history with one more entry; it keeps the newest 20. A value that is not an array counts as
-- an empty history.
CREATE OR REPLACE FUNCTION pgqueue_history(history jsonb, entry jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(history) IS DISTINCT FROM 'array' THEN '[]'
                WHEN pg_catalog.jsonb_array_length(history) < 20 THEN history
                ELSE pg_catalog.jsonb_path_query_array(history, '$[last - 18 to last]') END
           || pg_catalog.jsonb_build_array(entry)
$$;

REVOKE ALL ON FUNCTION pgqueue_history(jsonb, jsonb) FROM PUBLIC;
