-- For a connection of the engine that no pooler shares: a limit on every statement, and the plans that the claim index was made
-- for, made once. (Behind a pooler roles.sql sets on the role what claims need.) enable_sort: off for claims, whose rows come in the order
-- of their index. No hash or merge join: rows are locked in the order in which they are given. In another isolation than READ
-- COMMITTED a row that somebody changed meanwhile would be an error, and not one to read again or to skip.
SELECT set_config('statement_timeout', %(statement_timeout)s, false), set_config('lock_timeout', %(lock_timeout)s, false),
       set_config('idle_in_transaction_session_timeout', %(statement_timeout)s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('enable_sort', %(enable_sort)s, false), set_config('jit', 'off', false)
