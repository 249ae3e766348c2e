-- What the database accepted, written down with the write itself. It belongs to the superuser; no
-- role of the queue has any right here, and none that works as one of them can take the triggers
-- off.
CREATE SCHEMA ledger;
REVOKE ALL ON SCHEMA ledger FROM PUBLIC;

CREATE TABLE ledger.events (
    seq    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    job_id text        NOT NULL,
    kind   text        NOT NULL,  -- insert, start, end, other, delete
    status text        NOT NULL,  -- what the row became
    lease  bigint      NOT NULL,  -- start: the new one; end: the one that was ended
    taken  boolean     NOT NULL,  -- end: not by the attempt itself, the lease grew (cancel, burial, release by a sweep)
    burned boolean     NOT NULL,  -- end: the attempt counts
    due    timestamptz NOT NULL,  -- run_after
    writer text        NOT NULL   -- who was logged in; every worker process of the tests has a login of its own
);
CREATE INDEX ON ledger.events (job_id, seq);

CREATE FUNCTION ledger.write_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO ledger.events (job_id, kind, status, lease, taken, burned, due, writer)
        VALUES (NEW.job_id, 'insert', NEW.status, NEW.lease, false, false, NEW.run_after, session_user);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO ledger.events (job_id, kind, status, lease, taken, burned, due, writer)
        VALUES (OLD.job_id, 'delete', OLD.status, OLD.lease, false, false, OLD.run_after, session_user);
    ELSE
        INSERT INTO ledger.events (job_id, kind, status, lease, taken, burned, due, writer)
        VALUES (NEW.job_id,
                CASE WHEN NEW.status = 'processing' AND NEW.lease <> OLD.lease THEN 'start'
                     WHEN OLD.status = 'processing' THEN 'end' ELSE 'other' END,
                NEW.status, CASE NEW.status WHEN 'processing' THEN NEW.lease ELSE OLD.lease END,
                NEW.lease <> OLD.lease, NEW.attempt_count >= OLD.attempt_count, NEW.run_after, session_user);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_adds AFTER INSERT OR DELETE ON job_logs FOR EACH ROW EXECUTE FUNCTION ledger.write_down();
CREATE TRIGGER ledger_changes AFTER UPDATE ON job_logs FOR EACH ROW
    WHEN (OLD.status <> NEW.status OR OLD.lease <> NEW.lease) EXECUTE FUNCTION ledger.write_down();
