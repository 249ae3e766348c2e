-- Stops or starts a queue for all workers; what runs goes on running.
SELECT pause_queue(%(queue)s, %(paused)s)
