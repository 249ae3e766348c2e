"""What processes tell the database about themselves: the job types that they know, and that they
are alive."""

import logging

log = logging.getLogger("pgqueue.database.registry")
