"""What can go wrong with a queue, as nouns under one root; and the words with which a handler ends
its attempt."""

from datetime import timedelta

from pgqueue.durations import Duration, duration


class QueueError(Exception):
    """Root of everything that pgqueue raises for its callers."""


class JobNotFound(QueueError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job not found: {job_id}")
        self.job_id = job_id


class RateLimited(QueueError):
    """The user has used up the limit of this job type. `retry_after` says when one place comes
    free."""

    def __init__(self, job_type: str, retry_after: timedelta) -> None:
        super().__init__(
            f"Too many jobs of type {job_type} for this user: try again in "
            f"{retry_after.total_seconds():.0f} s"
        )
        self.job_type = job_type
        self.retry_after = retry_after


class DuplicatePayload(QueueError):
    """The job id is taken by a job of another type, user or payload."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job ID already used with another payload: {job_id}")
        self.job_id = job_id


class WrongState(QueueError):
    """The job is not in a state in which this can be done. `status` says which it is in."""

    def __init__(self, job_id: str, status: str, message: str) -> None:
        super().__init__(f"{message}: {job_id}")
        self.job_id = job_id
        self.status = status


class LeaseLost(QueueError):
    """The job is no longer this attempt's: its lease ran out, or it was cancelled. What the attempt
    writes does not count."""


class InvalidJob(QueueError):
    """The job cannot be enqueued as it is: unknown type, a payload that does not fit, a value out
    of range. `index` says which of several it is."""

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class UnknownType(InvalidJob):
    """No process has published a job type of this name."""


class Unavailable(QueueError):
    """The database cannot be reached, or does not answer in time. `reason` says why. What was asked
    may have been done or not; an enqueue with an id can simply be sent again."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The database is not available: {reason}")
        self.reason = reason


class NotAllowed(InvalidJob):
    """The type is for administrators, and the role in the database is not one: see
    sql/roles.sql."""


class SchemaError(QueueError):
    """The database does not hold a schema that this release can work with; the message says what to
    do."""


class ArchiveError(QueueError, OSError):
    """Rows that are past their time cannot be written to the archive; they stay."""


class SettingsError(QueueError):
    """The environment holds wrong or missing settings. `problems` has a sentence for each, all of
    them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TaskError(QueueError):
    """A task is declared in a way that cannot work, or a job type is declared twice."""


class ModuleError(TaskError):
    """A module of tasks cannot be imported. `trace` is the traceback, for people."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Ending(Exception):
    """Root of what a handler may raise to say how its attempt ends."""


class Retry(Ending):
    """A failed attempt, to be repeated no earlier than `after` from now (and never earlier than the
    backoff). `uncertain`: the side effect that the attempt declared by `job.intend()` may
    have happened. `answered`: the dependency works, and refused this job only, so the circuit
    breaker does not count the failure."""

    after: timedelta | None = None
    uncertain: bool = False
    answered: bool = False

    def __init__(
        self,
        message: str = "the handler asked for a retry",
        *,
        after: Duration | None = None,
        uncertain: bool = False,
        answered: bool = False,
    ) -> None:
        super().__init__(message)
        self.after = None if after is None else duration(after)
        self.uncertain = uncertain
        self.answered = answered


class Discard(Ending):
    """The job can never succeed: it goes to the dead-letter queue at once, with attempts left or
    not. `answered`: the dependency works, and refused this job."""

    answered: bool = False

    def __init__(self, message: str = "", *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class Snooze(Ending):
    """Not now: the job comes again after `delay`, and this attempt does not count."""

    def __init__(self, delay: Duration, message: str | None = None) -> None:
        super().__init__(message or "snoozed")
        self.delay = duration(delay)
        self.reason = message


class DependencyDown(Ending):
    """Something that the job needs is broken, not the job: this attempt does not count, the circuit
    breaker of `dependency` opens, and the jobs of all types that depend on it wait until one of
    them gets through. The job keeps its place in the queue; with `after` it comes again no earlier
    than that, because it may be the only one that is refused so."""

    after: timedelta | None = None

    def __init__(
        self, dependency: str, message: str | None = None, *, after: Duration | None = None
    ) -> None:
        super().__init__(message or f"{dependency} is down")
        self.dependency = dependency
        self.after = None if after is None else duration(after)
