"""The lines that a worker logs about itself and its jobs."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pgqueue.attempt import Outcome
from pgqueue.job import Status
from pgqueue.version import __version__
from pgqueue.worker.inflight import RunningAttempt

log = logging.getLogger("pgqueue.worker")


def log_outcome(held: RunningAttempt, outcome: Outcome, level: int) -> None:
    """Log how an attempt ended, in one line."""
    claim = held.claim
    milliseconds = max(0, round((held.finished_at - held.started_at) * 1000))
    match outcome.status:
        case Status.COMPLETED:
            text = f"completed in {milliseconds}ms"
        case Status.FAILED:
            wait = outcome.delay.total_seconds() if outcome.delay else 0.0
            text = (
                f"failed (Attempt {claim.attempt}/{claim.max_attempts}), again in {wait:.1f} s: "
                f"{outcome.error}"
            )
        case Status.DLQ:
            text = f"moved to the dead-letter queue: {outcome.error}"
        case _ if outcome.dependency is not None:
            text = f"waits, {outcome.dependency} is down: {outcome.error}"
        case _ if outcome.delay is not None:
            text = (
                f"snoozed for {outcome.delay.total_seconds():g} s: "
                f"{outcome.error or 'the handler asked for it'}"
            )
        case _:
            text = "given back: the worker stops"
    log.log(
        level,
        "Job %s %s",
        claim.job_id,
        text,
        extra={
            "event": f"job.{outcome.status}",
            "jobId": claim.job_id,
            "jobType": claim.job_type,
            "status": str(outcome.status),
            "attemptCount": claim.attempt,
            "duration": milliseconds,
        },
    )


def log_start(
    name: str, slots: Mapping[str, int], tasks: Iterable[str], resources: Iterable[Any]
) -> None:
    """Log the first line of a worker."""
    # Resources may have a `banner`: a few words on what they are configured to use.
    said = {str(one.banner): None for one in resources if hasattr(one, "banner")}
    queues = ", ".join(f"{queue} ({count} at once)" for queue, count in slots.items())
    log.info(
        "pgqueue worker %s started as %s, pid %d: queues %s; job types %s%s",
        __version__,
        name,
        os.getpid(),
        queues,
        ", ".join(sorted(tasks)),
        "".join(f"; {words}" for words in said),
        extra={"event": "worker.started", "worker": name},
    )
