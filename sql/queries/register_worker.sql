-- Enters a process into the registry, or enters it again.
INSERT INTO job_workers AS w (id, kind, host, pid, release, queues, types, detail, lease)
VALUES (%(worker)s, %(kind)s, %(host)s, %(pid)s, %(release)s, %(queues)s::jsonb, %(types)s::jsonb,
        %(detail)s::jsonb, %(lease)s::interval)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), types = excluded.types
