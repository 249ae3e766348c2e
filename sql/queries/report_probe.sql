-- What the probe of a dependency has shown: alive, down or unclear; answers the state that follows.
SELECT pgqueue_dependency_probed(%(dependency)s::text, %(probe)s::uuid, %(lease)s::bigint,
                                 %(worker)s::text, %(verdict)s::text, %(reason)s::text,
                         %(retry_after)s::interval)
