"""`@task` turns a handler into a Task: the function, the type of its payload, and the policy of its
job type."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec

from pgqueue.attempt import Job, ThreadJob
from pgqueue.declarations import Declared, is_async, place_of
from pgqueue.durations import Duration, duration
from pgqueue.errors import TaskError
from pgqueue.settings import Settings

P = TypeVar("P")

Handler = Callable[[Job[P]], Any] | Callable[[ThreadJob[P]], Any]


class Limit(msgspec.Struct, frozen=True):
    """At most `count` jobs of a type for one user in any rolling window `per`."""

    count: int
    per: Duration

    def __post_init__(self) -> None:
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        if not whole or not 1 <= self.count < 1 << 31 or self.window <= timedelta():
            wanted = "a limit is a whole number of jobs, at least 1, in a window longer than 0"
            raise ValueError(f"{wanted}, not {self.count!r} in {self.per!r}")

    @property
    def window(self) -> timedelta:
        return duration(self.per)


class Backoff(msgspec.Struct, frozen=True):
    """After failed attempt n the job waits base * 2^(n-1), plus up to 10 % of jitter, never longer
    than `cap` (seconds)."""

    base: Duration = 2
    cap: Duration = 3600

    def __post_init__(self) -> None:
        if not timedelta() < duration(self.base) <= duration(self.cap):
            raise ValueError(
                f"a backoff has 0 < base <= cap, not base {self.base!r}, cap {self.cap!r}"
            )


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """A task's policy as it is published in the table job_types."""

    job_type: str
    queue: str
    max_attempts: int
    limit: Limit | None
    user_from: str | None
    backoff: Backoff
    timeout: timedelta
    depends_on: str | None
    admin: bool


class Task(Generic[P]):
    """A handler with its policy. Calling it calls the handler; nothing is registered anywhere."""

    def __init__(
        self,
        job_type: str,
        handler: Callable[[Any], Any],
        payload_type: Any,
        decode: Callable[[bytes | str], P],
        *,
        queue: str,
        max_attempts: int,
        timeout: timedelta,
        backoff: Backoff,
        rate_limit: "Limit | Callable[[Settings], Limit | None] | None",
        depends_on: str | None,
        user_from: str | None,
        admin: bool,
    ) -> None:
        self.job_type = job_type
        self.handler = handler
        self.payload_type = payload_type
        self.queue = queue
        self.max_attempts = max_attempts
        self.timeout = timeout
        self.seconds = timeout.total_seconds()
        self.backoff = backoff
        self.rate_limit = rate_limit
        self.depends_on = depends_on
        self.user_from = user_from
        self.admin = admin
        self.is_async = is_async(handler)
        self.decode = decode

    def __call__(self, job: Job[P] | ThreadJob[P]) -> Any:
        return self.handler(job)

    def __repr__(self) -> str:
        return f"<Task {self.job_type}>"

    def declaration(self, settings: Settings) -> Declaration:
        """The policy with what the settings decide filled in."""
        limit = self.rate_limit(settings) if callable(self.rate_limit) else self.rate_limit
        if not isinstance(limit, Limit | None):
            problem = (
                f"rate_limit makes a Limit or None from the settings, not {type(limit).__name__}"
            )
            raise TaskError(f"{place_of(self.handler)}: {self.job_type}: {problem}")
        return Declaration(
            job_type=self.job_type,
            queue=self.queue,
            max_attempts=self.max_attempts,
            limit=limit,
            user_from=self.user_from,
            backoff=self.backoff,
            timeout=self.timeout,
            depends_on=self.depends_on,
            admin=self.admin,
        )


def task(
    job_type: str,
    *,
    queue: str = "default",
    max_attempts: int = 5,
    timeout: Duration = 60,
    backoff: Backoff = Backoff(),
    rate_limit: Limit | Callable[[Settings], Limit | None] | None = None,
    depends_on: str | None = None,
    user_from: str | None = None,
    admin: bool = False,
) -> Callable[[Handler[P]], Task[P]]:
    """Declares the handler of a job type.

    timeout: seconds, timedelta or "30s"; how long one attempt may take. rate_limit: a Limit, or a
    function that makes it from the Settings. depends_on: the name of what the job cannot do without
    ("payments"). user_from: the member of the payload that names the user, where enqueue gets no
    user_id. admin: only administrators may enqueue, see or cancel jobs of this type over HTTP.

    An `async def` handler takes a Job, a plain `def` a ThreadJob. The payload's type is read from
    the annotation, `job: Job[Resize]`; without one the payload is plain JSON values. Raises
    TaskError, with file and line, for a declaration that cannot work.
    """

    frame = inspect.currentframe()
    place = None if frame is None else frame.f_back
    if callable(job_type):
        raise TaskError(
            f"{place_of(job_type)}: @task needs the name of the job type: write "
            '@task("image.resize")'
        )

    def declare(handler: Handler[P]) -> Task[P]:
        declared = Declared(job_type, handler, place)
        declared.name("queue", queue)
        if depends_on is not None:
            declared.name("depends_on", depends_on)
        declared.attempts(max_attempts)
        limit = declared.timeout(timeout)
        declared.kind("backoff", backoff, Backoff, "Backoff(2, cap=3600)")
        declared.kind("admin", admin, bool, "True")
        if rate_limit is not None and (not callable(rate_limit) or isinstance(rate_limit, type)):
            declared.kind("rate_limit", rate_limit, Limit, 'Limit(10, per="1h")')
        payload_type, decode = declared.payload_type(handler, declared.handler(handler))
        if user_from is not None:
            declared.user_from(user_from, payload_type)
        return Task(
            job_type,
            handler,
            payload_type,
            decode,
            queue=queue,
            max_attempts=max_attempts,
            timeout=limit,
            backoff=backoff,
            rate_limit=rate_limit,
            depends_on=depends_on,
            user_from=user_from,
            admin=admin,
        )

    return declare
