"""The asyncio task of an attempt, and the mark by which the code of a handler is known."""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

ATTEMPT: ContextVar[object] = ContextVar("pgqueue_attempt")
"""Which attempt runs here: set for a handler, its subtasks and its thread, and nowhere else."""


class OwnTask(asyncio.Task[Any]):
    """A task that only its own attempt and the worker can cancel: a handler that cancels all tasks
    of the loop must not take the worker and its neighbours with it."""

    attempt: object = None
    """The attempt that it belongs to; None for the worker's own."""

    def cancel(self, msg: Any | None = None) -> bool:
        caller = ATTEMPT.get(None)
        if caller is not None and caller is not self.attempt:
            return False
        return super().cancel(msg)


def own_task(coroutine: Coroutine[Any, Any, Any]) -> OwnTask:
    """A task of the worker's own, in the running loop."""
    return task_factory(asyncio.get_running_loop(), coroutine)


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> OwnTask:
    """For loops: every task belongs to where it was made."""
    one = OwnTask(coroutine, loop=loop, **options)
    one.attempt = ATTEMPT.get(None)
    return one
