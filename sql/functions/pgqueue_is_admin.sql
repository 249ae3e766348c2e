-- Whether the session may enqueue jobs of types that are for administrators: EXECUTE on this
-- function is that right. The functions that ask run as their owner, so the question is about the
-- role that the session has set, or else logged in as.
CREATE OR REPLACE FUNCTION pgqueue_is_admin() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.has_function_privilege(
        CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user
             ELSE pg_catalog.current_setting('role')::name END,
        'pgqueue_is_admin()', 'EXECUTE')
$$;

REVOKE ALL ON FUNCTION pgqueue_is_admin() FROM PUBLIC;
