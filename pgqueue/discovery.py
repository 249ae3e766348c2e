"""Collects the tasks of modules by the names of the modules."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any

from pgqueue.declarations import place_of
from pgqueue.errors import TaskError
from pgqueue.imports import imported
from pgqueue.settings import Settings
from pgqueue.task import Task

Lifespan = Callable[[Settings], AbstractAsyncContextManager[Any]]
"""What a task module may define; what it yields is `job.resources`."""


def by_type(tasks: Iterable[Task[Any]]) -> dict[str, Task[Any]]:
    """Job type -> task. Raises TaskError when two tasks have the same job type."""
    found: dict[str, Task[Any]] = {}
    for one in tasks:
        if not isinstance(one, Task):
            raise TaskError(f"a worker takes tasks, not {one!r}: decorate the function with @task")
        if (other := found.setdefault(one.job_type, one)) is not one:
            raise TaskError(
                f"job type {one.job_type} is declared twice "
                f"({place_of(other.handler)} and {place_of(one.handler)})"
            )
    return found


def lifespans_of(homes: Mapping[str, ModuleType]) -> dict[str, Lifespan]:
    """Job type -> the `lifespan` of its module, where there is one."""
    found = {name: getattr(home, "lifespan", None) for name, home in homes.items()}
    return {name: lifespan for name, lifespan in found.items() if lifespan is not None}


def load_tasks(modules: Iterable[str]) -> tuple[dict[str, Task[Any]], dict[str, ModuleType]]:
    """The tasks that the named modules hold, by job type, and the module of each: of those that
    hold it, the one that declares it or the nearest package around that, else the first.

    Raises ModuleError when a module cannot be imported, TaskError when it holds no task or a type
    is declared twice.
    """
    tasks: dict[str, Task[Any]] = {}
    holders: dict[str, list[ModuleType]] = {}
    for name in modules:
        module = imported(name)
        found = [value for value in vars(module).values() if isinstance(value, Task)]
        if not found:
            raise TaskError(f"task module {name} holds no task: decorate a function with @task")
        for one in found:
            if (other := tasks.setdefault(one.job_type, one)) is not one:
                places = f"{place_of(other.handler)} and {place_of(one.handler)}"
                first = holders[one.job_type][0].__name__
                raise TaskError(
                    f"job type {one.job_type} is declared twice: in {first} and in {name} "
                    f"({places})"
                )
            holders.setdefault(one.job_type, []).append(module)
    return tasks, {job_type: _home(tasks[job_type], where) for job_type, where in holders.items()}


def _home(one: Task[Any], holders: Iterable[ModuleType]) -> ModuleType:
    # A module that merely imports a task must not lend it its own lifespan.
    origin = f"{getattr(one.handler, '__module__', '')}."
    return max(
        holders,
        key=lambda module: len(module.__name__) if origin.startswith(f"{module.__name__}.") else 0,
    )
