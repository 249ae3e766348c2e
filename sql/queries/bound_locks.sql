-- No statement of this transaction waits long for a lock: what others hold can be done another
-- time.
SELECT set_config('lock_timeout', '100ms', true)
