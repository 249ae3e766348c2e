-- The user of a job: as given, else from the payload, else 'system' where no limit counts users.
CREATE OR REPLACE FUNCTION pgqueue_owner(kind job_types, payload jsonb, user_id text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    named text := payload ->> kind.user_from;
BEGIN
    IF user_id IS NULL AND named IS NULL AND kind.limit_count IS NOT NULL THEN
        RAISE EXCEPTION 'job type % needs a user_id: it has a limit per user', kind.job_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF kind.user_from IS NOT NULL AND user_id IS DISTINCT FROM named AND user_id IS NOT NULL THEN
        RAISE EXCEPTION 'user_id is not the % of the payload', kind.user_from
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN coalesce(user_id, named, 'system');
END
$$;

REVOKE ALL ON FUNCTION pgqueue_owner(job_types, jsonb, text) FROM PUBLIC;
