-- Whether this transaction is the one that does what only one process should do at a time.
SELECT pg_try_advisory_xact_lock(%(lock)s) AS mine
