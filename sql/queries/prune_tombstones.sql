-- Forgets a batch of the ids that have been remembered long enough, since their rows were removed.
DELETE FROM job_tombstones t
 WHERE t.id_hash IN (SELECT o.id_hash FROM job_tombstones o
                      WHERE o.ended_at < now() - %(keep_ids)s::interval LIMIT %(batch)s
                        FOR UPDATE SKIP LOCKED)
