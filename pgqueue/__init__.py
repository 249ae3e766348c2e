"""pgqueue: a job queue on Postgres alone. One table is the queue, the log and the rate limiter."""

# isort: off
import pgqueue.import_path  # noqa: F401 - before all others: it says where those are looked for

# isort: on
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pgqueue-jobs")
except PackageNotFoundError:
    __version__ = "0"

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
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
from pgqueue.job import JobView, NewJob, Status, Ticket
from pgqueue.sync_client import Client
from pgqueue.task import Backoff, Limit, Task, task

__all__ = [
    "AsyncClient",
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
