-- A job type, if this session may enqueue jobs of it now. Raises for an unknown type, for one that
-- is for administrators, and where its limit cannot be counted: an older snapshot misses jobs.
CREATE OR REPLACE FUNCTION pgqueue_job_type(job_type text) RETURNS job_types
LANGUAGE plpgsql STABLE AS $$
DECLARE
    kind job_types;
BEGIN
    SELECT * INTO kind FROM job_types t WHERE t.job_type = pgqueue_job_type.job_type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown job type %', pgqueue_job_type.job_type
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Job types are published by "pgqueue migrate" and by every worker '
                         'that has a task for them.';
    END IF;
    IF kind.admin AND NOT pgqueue_is_admin() THEN
        RAISE EXCEPTION 'job type % is for administrators', kind.job_type
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Connect as a member of pgqueue_operator: see sql/roles.sql.';
    END IF;
    IF kind.limit_count IS NOT NULL
       AND pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'job type % has a limit: enqueue it in a READ COMMITTED transaction',
            kind.job_type USING ERRCODE = 'invalid_transaction_state';
    END IF;
    RETURN kind;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_job_type(text) FROM PUBLIC;
