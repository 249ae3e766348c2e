"""The ways in which a handler can end an attempt."""

from datetime import UTC, datetime

import msgspec

from pgqueue import Backoff, DependencyDown, Discard, Job, Retry, Snooze, task


class Payment(msgspec.Struct):
    invoice: str
    answer: str
    """What the bank says. A real handler would ask it."""


# [endings]
@task("payment.collect", max_attempts=8, backoff=Backoff(10, cap="1h"), depends_on="bank")
async def collect(job: Job[Payment]) -> None:
    match job.payload.answer:
        case "no such invoice":
            # It can never succeed: to the dead-letter queue at once.
            raise Discard("the bank does not know this invoice")
        case "busy":
            # A failed attempt. The next one starts in 90 seconds, or after the backoff if longer.
            raise Retry("the bank is busy", after="90s")
        case "closed":
            # Not now. The job comes again in an hour, and this attempt does not count.
            raise Snooze("1h", "the bank is closed")
        case "out of order":
            # Every job that depends on the bank waits until one of them succeeds.
            raise DependencyDown("bank")
        case "a bug":
            # Any other exception is a failed attempt: again after the backoff.
            raise ValueError("unexpected answer")
    # A handler that returns has completed its job.


# [/endings]


class Report(msgspec.Struct):
    day: datetime


# [snooze]
@task("report.daily")
async def report(job: Job[Report]) -> None:
    if datetime.now(UTC) < job.payload.day:
        raise Snooze("1h", "the day is not over")


# [/snooze]
