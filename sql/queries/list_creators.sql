-- Roles that may create in the schema of our tables, and are neither superusers nor in the role
-- that owns the tables. The database's owner is left out. What such a role creates can be taken
-- for the server's own: an operator whose operands fit better is preferred.
SELECT DISTINCT n.oid::regnamespace::text AS schema,
       coalesce(pg_catalog.quote_ident(r.rolname::text), 'PUBLIC') AS role
  FROM pg_class t
  JOIN pg_namespace n ON n.oid = t.relnamespace
 CROSS JOIN LATERAL (SELECT a.grantee FROM aclexplode(n.nspacl) AS a
                      WHERE a.privilege_type = 'CREATE'
                     UNION SELECT n.nspowner) AS may
  LEFT JOIN pg_roles r ON r.oid = may.grantee
 WHERE t.oid = to_regclass('job_logs')::oid AND r.rolname IS DISTINCT FROM 'pg_database_owner'
   AND (r.oid IS NULL OR NOT r.rolsuper AND NOT pg_has_role(r.oid, t.relowner, 'USAGE'::text))
 ORDER BY 2
