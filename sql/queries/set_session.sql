-- For a connection that no pooler shares: sets what it depends on, over the settings of the
-- database and of the role (pgqueue/database/session.py says what and why). Behind a pooler
-- roles.sql sets on the role what claims need.
SELECT set_config(s.name, s.value, %(local)s)
  FROM unnest(%(names)s::text[], %(values)s::text[]) AS s(name, value)
