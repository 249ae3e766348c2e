-- A row as far as it can be read: a column that a disk has damaged says so instead of its value.
-- For the one row in a page that cannot be read.
CREATE OR REPLACE FUNCTION pgqueue_readable_job(id uuid) RETURNS job_logs
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    part text;
    one  jsonb;
    row  jsonb := '{}';
BEGIN
    FOR part IN SELECT a.attname FROM pg_attribute a
                 WHERE a.attrelid = 'job_logs'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        BEGIN
            EXECUTE format('SELECT to_jsonb(j.%I) FROM job_logs j WHERE j.id = $1', part)
               INTO one USING pgqueue_readable_job.id;
        EXCEPTION WHEN OTHERS THEN
            one := to_jsonb('unreadable: ' || SQLERRM);
            IF part = 'history' THEN
                one := jsonb_build_array(jsonb_build_object('event', 'unreadable', 'error', one));
            END IF;
        END;
        row := row || jsonb_build_object(part, one);
    END LOOP;
    RETURN jsonb_populate_record(NULL::job_logs, row);
END
$$;

REVOKE ALL ON FUNCTION pgqueue_readable_job(uuid) FROM PUBLIC;
