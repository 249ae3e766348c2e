-- A job succeeded while others failed on the same dependency.
SELECT pgqueue_dependency_works(%(dependency)s::text)
