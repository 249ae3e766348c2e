-- Jobs that failed on a dependency; answers its state: closed, opened (by these), open or
-- half_open.
SELECT pgqueue_dependency_failed(%(dependency)s::text, %(jobs)s::uuid[], %(down)s::boolean,
                                 %(reason)s::text, %(retry_after)s::interval,
                         %(succeeded_ago)s::interval)
