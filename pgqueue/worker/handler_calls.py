"""Calls a handler: in a context of its own, in this process only, and so that everything it raises
comes back as an error."""

import inspect
import os
import sys
import types
from collections.abc import Callable, Generator
from typing import Any

from pgqueue.attempt import Job, ThreadJob

_forks = 0
"""How often this process was forked from another one since it read this module."""


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def _leave_if_forked(before: int, code: int) -> None:
    """A handler may fork. A child that comes back from it must not work with the sockets of its
    parent."""
    if _forks != before:
        os._exit(code)


@types.coroutine
def begun() -> Generator[None, None, None]:
    """Suspends once. A coroutine that was sent here already can catch that its task is cancelled
    before its first step."""
    yield


@types.coroutine
def awaited(handler: Callable[[Job[Any]], Any], job: Job[Any]) -> Generator[Any, Any, None]:
    """`await handler(job)`; each time that the handler suspends, it must still be the same
    process."""
    before = _forks
    try:
        coroutine = handler(job)
        step, value = coroutine.send, None
        while True:
            try:
                suspended = step(value)
            except StopIteration as end:
                refuse_unrun(end.value)
                break
            _leave_if_forked(before, 0)
            try:
                value = yield suspended
                step = coroutine.send
            except BaseException as error:  # noqa: BLE001 - goes on into the handler
                value, step = error, coroutine.throw
    except BaseException:
        _leave_if_forked(before, 1)
        raise
    _leave_if_forked(before, 0)


def called(handler: Callable[[ThreadJob[Any]], Any], job: ThreadJob[Any]) -> BaseException | None:
    """Runs a plain function, in a thread. What it raises is the answer: a future does not take
    everything that can be raised."""
    before = _forks
    try:
        release_django()
        refuse_unrun(handler(job))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a thread is a failed attempt too
        _leave_if_forked(before, 1)
        return error
    finally:
        _leave_if_forked(before, 0)
        release_django()
    return None


def refuse_unrun(returned: object) -> None:
    """Raises TypeError when a handler did not do its work, but returned what would do it."""
    kind = type(returned)
    if issubclass(kind, types.CoroutineType | types.GeneratorType | types.AsyncGeneratorType):
        if not inspect.isasyncgen(returned):
            returned.close()  # type: ignore[attr-defined]  # both have it; a coroutine would warn that nothing awaited it
        raise TypeError(
            f"the handler returned a {kind.__name__}, and nothing runs it: await it in an `async "
            "def` handler"
        )


def release_django() -> None:
    """Django's ORM keeps a connection for each thread, and closes a broken or too old one only
    where a request begins or ends."""
    if (db := sys.modules.get("django.db")) is not None:
        try:
            db.close_old_connections()
        except Exception:  # noqa: BLE001 - settings that are not there yet, for instance: the handler will say it better
            return


async def release_django_async() -> None:
    """The same for `async def` handlers, whose ORM calls share the one thread of asgiref."""
    if "django.db" in sys.modules and (sync := sys.modules.get("asgiref.sync")) is not None:
        await sync.sync_to_async(release_django)()
