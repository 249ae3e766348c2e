-- May this job in? Inserts it, or answers why not: its id is taken (by a row, or by a tombstone),
-- or its user has used up the limit. A duplicate does not count, and the limit never refuses one.
--
-- The caller holds pgqueue_limit_lock() of the user for a type with a limit, and took it in an
-- earlier statement. Each statement here sees what was committed before it began, so that the
-- count under the lock is exact. `digest` is pgqueue_digest() of type, user and payload.
CREATE OR REPLACE FUNCTION pgqueue_admit(
    kind job_types, job_id text, owner text, payload jsonb, filled jsonb, digest bytea,
    queue text, priority integer, run_after timestamptz, max_attempts integer
) RETURNS pgqueue_answer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    place  text := coalesce(pgqueue_admit.queue, kind.queue);
    moment timestamptz;
    wait   interval;
    answer pgqueue_answer;
BEGIN
    LOOP
        IF kind.limit_count IS NOT NULL THEN
            wait := pgqueue_limit_wait(kind.job_type, owner, kind.limit_count, kind.limit_window);
        END IF;
        IF wait IS NULL THEN
            moment := clock_timestamp();
            INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue,
                                  priority, run_after, max_attempts, created_at)
            VALUES (pgqueue_admit.job_id, kind.job_type, owner,
                    pgqueue_stored_payload(pgqueue_admit.payload, filled, kind.user_from), digest,
                    place, coalesce(pgqueue_admit.priority, 5),
                    coalesce(pgqueue_admit.run_after, moment),
                    coalesce(pgqueue_admit.max_attempts, kind.max_attempts), moment)
            ON CONFLICT (job_id) DO NOTHING;
            IF FOUND THEN
                -- After the insert, not before: retention may have turned a row into a tombstone
                -- while this statement waited for it.
                IF NOT EXISTS (SELECT FROM job_tombstones t
                                WHERE t.id_hash = pgqueue_id_hash(pgqueue_admit.job_id)) THEN
                    RETURN (pgqueue_admit.job_id, 'enqueued', true, NULL, NULL, place
                           )::pgqueue_answer;
                END IF;
                DELETE FROM job_logs j WHERE j.job_id = pgqueue_admit.job_id;
            END IF;
        END IF;
        SELECT * INTO answer FROM pgqueue_known_job(pgqueue_admit.job_id, digest);
        IF FOUND THEN RETURN answer; END IF;
        IF wait IS NOT NULL THEN
            RETURN (pgqueue_admit.job_id, NULL, false, wait, 'rate_limited', NULL)::pgqueue_answer;
        END IF;
        -- The row that was in the way is gone again: its transaction was rolled back.
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION pgqueue_admit(
    job_types, text, text, jsonb, jsonb, bytea, text, integer, timestamptz, integer
) FROM PUBLIC;
