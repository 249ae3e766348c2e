-- A job succeeded while others failed on the same dependency.
SELECT dependency_works(%(dependency)s::text)
