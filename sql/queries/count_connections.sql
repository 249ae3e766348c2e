-- Connections to this database, to the whole server, and how many that takes.
SELECT (SELECT d.numbackends FROM pg_stat_database d WHERE d.datname = current_database()),
       (SELECT sum(d.numbackends) FROM pg_stat_database d),
       current_setting('max_connections')::integer
