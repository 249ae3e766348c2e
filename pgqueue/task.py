"""`@task` turns a handler into a Task: the function, the type of its payload, and the policy of its job type."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from pgqueue.durations import Duration, duration
from pgqueue.errors import TaskError
from pgqueue.job import Job
from pgqueue.settings import Settings

P = TypeVar("P")

CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""What no name may contain: it could not be stored, or would forge a line of a log."""


class Limit(msgspec.Struct, frozen=True):
    """At most `count` jobs of a type for one user in any rolling window `per`."""

    count: int
    per: Duration

    def __post_init__(self) -> None:
        if self.count < 1 or self.window <= timedelta():
            raise ValueError(f"a limit is at least one job in a window longer than 0, not {self.count} in {self.per!r}")

    @property
    def window(self) -> timedelta:
        return duration(self.per)


class Backoff(msgspec.Struct, frozen=True):
    """After failed attempt n the job waits base * 2^(n-1), plus up to 10 % of jitter, never longer than `cap` (seconds)."""

    base: Duration = 2
    cap: Duration = 3600

    def __post_init__(self) -> None:
        if not timedelta() < duration(self.base) <= duration(self.cap):
            raise ValueError(f"a backoff has 0 < base <= cap, not base {self.base!r}, cap {self.cap!r}")


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
        handler: Callable[[Job[P]], Any],
        payload_type: Any,
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
        self.is_async = inspect.iscoroutinefunction(handler)
        self.decode: Callable[[bytes | str], P] = msgspec.json.Decoder(payload_type).decode

    def __call__(self, job: Job[P]) -> Any:
        return self.handler(job)

    def __repr__(self) -> str:
        return f"<Task {self.job_type}>"

    def declaration(self, settings: Settings) -> Declaration:
        """The policy with what the settings decide filled in."""
        limit = self.rate_limit(settings) if callable(self.rate_limit) else self.rate_limit
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
) -> Callable[[Callable[[Job[P]], Awaitable[Any] | Any]], Task[P]]:
    """Declares the handler of a job type.

    timeout: seconds, timedelta or "30s"; how long one attempt may take.
    rate_limit: a Limit, or a function that makes it from the Settings.
    depends_on: the name of what the job cannot do without ("smtp").
    user_from: the member of the payload that names the user, where enqueue gets no user_id.
    admin: only administrators may enqueue, see or cancel jobs of this type over HTTP.

    The payload's type is read from the handler's annotation, `job: Job[Resize]`; without one the payload is plain JSON values.
    Raises TaskError for a declaration that cannot work.
    """

    def declare(handler: Callable[[Job[P]], Awaitable[Any] | Any]) -> Task[P]:
        _check_name("a job type", job_type)
        _check_name(f"{job_type}: queue", queue)
        if depends_on is not None:
            _check_name(f"{job_type}: depends_on", depends_on)
        if user_from is not None:
            _check_name(f"{job_type}: user_from", user_from)
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or not 1 <= max_attempts <= 1000:
            raise TaskError(f"{job_type}: max_attempts is a whole number from 1 to 1000, not {max_attempts!r}")
        try:
            limit = duration(timeout)
        except ValueError as error:
            raise TaskError(f"{job_type}: timeout is {error}") from None
        if limit <= timedelta():
            raise TaskError(f"{job_type}: timeout must be longer than 0")
        return Task(
            job_type,
            handler,
            _payload_type(job_type, handler),
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


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 255:
        raise TaskError(f"{what} has 1 to 255 characters, not {name!r}")
    if CONTROL.search(name):
        raise TaskError(f"{what} must not contain control characters: {name!r}")


def _payload_type(job_type: str, handler: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(handler).parameters.values())
    if len(parameters) != 1:
        raise TaskError(f"{job_type}: a handler takes one argument, the job")
    hint = get_type_hints(handler).get(parameters[0].name, Any)
    if get_origin(hint) is Job:
        hint = get_args(hint)[0]
    elif hint is Job:
        hint = Any
    return Any if isinstance(hint, TypeVar) else hint


def load_tasks(modules: Iterable[str]) -> tuple[dict[str, Task[Any]], dict[str, ModuleType]]:
    """The tasks that the named modules hold, by job type, and the module of each: of those that hold it, the one that declares it
    or the nearest package around that, else the first.

    Raises TaskError when a module cannot be imported, holds no task, or a type is declared twice.
    """
    tasks: dict[str, Task[Any]] = {}
    holders: dict[str, list[ModuleType]] = {}
    for name in modules:
        try:
            module = import_module(name)
        except Exception as error:  # whatever a module does at its import keeps it from being one
            raise TaskError(f"task module {name} cannot be imported: {type(error).__name__}: {error}") from error
        found = [value for value in vars(module).values() if isinstance(value, Task)]
        if not found:
            raise TaskError(f"task module {name} holds no task: decorate a function with @task")
        for one in found:
            if tasks.setdefault(one.job_type, one) is not one:
                first = holders[one.job_type][0].__name__
                raise TaskError(f"job type {one.job_type} is declared twice: in {first} and in {name}")
            holders.setdefault(one.job_type, []).append(module)
    return tasks, {job_type: _home(tasks[job_type], where) for job_type, where in holders.items()}


def _home(one: Task[Any], holders: Iterable[ModuleType]) -> ModuleType:
    # A module that merely imports a task must not lend it its own lifespan.
    origin = f"{getattr(one.handler, '__module__', '')}."
    return max(holders, key=lambda module: len(module.__name__) if origin.startswith(f"{module.__name__}.") else 0)
