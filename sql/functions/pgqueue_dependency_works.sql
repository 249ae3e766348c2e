-- A job succeeded while others failed: their failures are ordinary ones and are forgotten.
CREATE OR REPLACE FUNCTION pgqueue_dependency_works(dependency text) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    UPDATE job_dependencies d SET failures = '{}'
     WHERE d.dependency = pgqueue_dependency_works.dependency AND d.state = 'closed'
       AND d.failures <> '{}'
$$;

REVOKE ALL ON FUNCTION pgqueue_dependency_works(text) FROM PUBLIC;
