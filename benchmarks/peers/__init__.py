"""Other queues, measured by the same rules on the same server: see catalog.py."""
