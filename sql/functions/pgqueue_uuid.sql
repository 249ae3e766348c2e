-- A UUID of version 7, made as the default of job_logs.id makes it.
CREATE OR REPLACE FUNCTION pgqueue_uuid() RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 180000 THEN
        RETURN pg_catalog.uuidv7();
    END IF;
    RETURN (overlay(pg_catalog.lpad(pg_catalog.to_hex(
                (extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint
                * 512 / 125), 15, '0') PLACING '7' FROM 13 FOR 0)
            || substring(pg_catalog.gen_random_uuid()::text FROM 20))::uuid;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_uuid() FROM PUBLIC;
