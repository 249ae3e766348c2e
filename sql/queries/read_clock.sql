-- The database's clock, for "two hours ago" on a command line: only that clock decides.
SELECT clock_timestamp() AS now
