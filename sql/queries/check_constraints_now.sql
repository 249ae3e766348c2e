-- A foreign key of the application's may be checked at the commit only: then it is not known which
-- row it refuses.
SET CONSTRAINTS ALL IMMEDIATE
