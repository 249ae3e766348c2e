"""pgqueue: a job queue on Postgres alone. One table is the queue, the log and the rate limiter."""

# isort: off
import pgqueue.import_path  # noqa: F401 - before all others: it says where those are looked for

# isort: on
from pgqueue.attempt import Job, ThreadJob
from pgqueue.client import AsyncClient
from pgqueue.errors import (
    DependencyDown,
    Discard,
    DuplicatePayload,
    InvalidJob,
    JobNotFound,
    LeaseLost,
    NotAllowed,
    QueueError,
    RateLimited,
    Retry,
    SchemaError,
    SettingsError,
    Snooze,
    TaskError,
    Unavailable,
    UnknownType,
    WrongState,
)
from pgqueue.job import DeadFilter, JobView, NewJob, Status, Ticket
from pgqueue.settings import Settings
from pgqueue.stats import Stats
from pgqueue.sync_client import Client
from pgqueue.task import Backoff, Limit, Task, task
from pgqueue.version import __version__ as __version__
from pgqueue.worker.worker import Worker

__all__ = [
    "AsyncClient",
    "Backoff",
    "Client",
    "DeadFilter",
    "DependencyDown",
    "Discard",
    "DuplicatePayload",
    "InvalidJob",
    "Job",
    "JobNotFound",
    "JobView",
    "LeaseLost",
    "Limit",
    "NewJob",
    "NotAllowed",
    "QueueError",
    "RateLimited",
    "Retry",
    "SchemaError",
    "Settings",
    "SettingsError",
    "Snooze",
    "Stats",
    "Status",
    "Task",
    "TaskError",
    "ThreadJob",
    "Ticket",
    "Unavailable",
    "UnknownType",
    "Worker",
    "WrongState",
    "task",
]
