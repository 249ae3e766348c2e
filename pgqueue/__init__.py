"""pgqueue: a job queue on Postgres alone. One table is the queue, the log and the rate limiter."""

# isort: off
import pgqueue.start  # noqa: F401 - before all others: it says where those are looked for

# isort: on
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pgqueue")
except PackageNotFoundError:
    __version__ = "0"

from pgqueue.client import Client
from pgqueue.errors import (
    DependencyDown,
    Discard,
    DuplicatePayload,
    JobNotFound,
    LeaseLost,
    QueueError,
    RateLimited,
    Retry,
    Snooze,
    Unavailable,
)
from pgqueue.job import Job, JobView, NewJob, Status, Ticket
from pgqueue.task import Backoff, Limit, Task, task

__all__ = [
    "Backoff",
    "Client",
    "DependencyDown",
    "Discard",
    "DuplicatePayload",
    "Job",
    "JobNotFound",
    "JobView",
    "LeaseLost",
    "Limit",
    "NewJob",
    "QueueError",
    "RateLimited",
    "Retry",
    "Snooze",
    "Status",
    "Task",
    "Ticket",
    "Unavailable",
    "task",
]
