-- The published job types, by name.
SELECT job_type FROM job_types ORDER BY job_type
