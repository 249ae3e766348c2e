"""Faults against real worker processes and a durable Postgres, each with a ledger that the queue
cannot reach.

  CHAOS=small     (as when nothing is said) what the ordinary test command runs
  CHAOS=full      the sizes that the project promises; `python3 dev.py chaos` runs these and
                  writes a report
  CHAOS=0.1       a tenth of the way from small to full

Every test ends in a `Counts` (counts.py): jobs, lost, doubled, stale writes refused, seconds to
recover, duplicate starts.
"""
