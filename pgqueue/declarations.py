"""Refuses declarations of tasks that cannot work, where they stand."""

import inspect
import re
import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from pgqueue.attempt import BaseJob, ThreadJob
from pgqueue.durations import duration
from pgqueue.error_text import headline, line_of
from pgqueue.errors import TaskError
from pgqueue.payloads import decoder_of, members_of

CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""What no name may contain: it could not be stored, or would forge a line of a log."""

LONGEST_NAME = 255


class Declared:
    """One declaration under test: its job type, and where it stands."""

    def __init__(self, job_type: object, handler: object, frame: types.FrameType | None) -> None:
        self.place = _place(handler, frame)
        self.what = "@task"
        self.name("the job type", job_type)
        self.what = str(job_type)

    def refuse(self, problem: str) -> NoReturn:
        raise TaskError(f"{self.place}: {self.what}: {problem}")

    def name(self, what: str, name: object) -> None:
        if not isinstance(name, str):
            self.refuse(f"{what} is a text, not {_short(name)}")
        if not 1 <= len(name) <= LONGEST_NAME:
            self.refuse(f"{what} has 1 to {LONGEST_NAME} characters, not {len(name)}")
        if CONTROL.search(name):
            self.refuse(f"{what} must not contain control characters: {_short(name)}")

    def attempts(self, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
            self.refuse(f"max_attempts is a whole number from 1 to 1000, not {_short(value)}")

    def timeout(self, value: Any) -> timedelta:
        try:
            limit = duration(value)
        except ValueError as error:
            self.refuse(f'timeout is {error}: write timeout=60 or timeout="1m"')
        if limit <= timedelta():
            self.refuse("timeout must be longer than 0")
        return limit

    def kind(self, what: str, value: object, kind: type, example: str) -> None:
        if not isinstance(value, kind):
            self.refuse(f"{what} is a {kind.__name__}, not {_short(value)}: write {what}={example}")

    def handler(self, handler: object) -> inspect.Parameter:
        """Its one parameter."""
        if hasattr(handler, "job_type"):
            self.refuse(f"{_short(handler)} is a task already: one @task for each function")
        if inspect.isclass(handler) or not callable(handler):
            self.refuse(
                "a handler is a function, not "
                f"{'a class' if inspect.isclass(handler) else _short(handler)}"
            )
        called = type(handler).__call__  # of an object that can be called; a function has one too
        if any(map(inspect.isgeneratorfunction, (handler, called))) or any(
            map(inspect.isasyncgenfunction, (handler, called))
        ):
            self.refuse(
                "a handler does its work when it is called: nothing runs a generator, take out "
                "its `yield`"
            )
        try:
            parameters = list(inspect.signature(handler).parameters.values())
        except (TypeError, ValueError) as error:
            self.refuse(
                f"the parameters of the handler cannot be read ({error}): write a `def` around it"
            )
        named = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
        if len(parameters) != 1 or parameters[0].kind in named:
            self.refuse(
                "a handler takes one argument, the job: write `def handler(job)`, not "
                f"{_signature(parameters)}"
            )
        return parameters[0]

    def payload_type(
        self, handler: Callable[..., Any], parameter: inspect.Parameter
    ) -> tuple[Any, Callable[[Any], Any]]:
        """What `job: Job[X]` says, and its decoder."""
        hint = self._hint(handler, parameter)
        origin = get_origin(hint) or hint
        if isinstance(origin, type) and issubclass(origin, BaseJob):
            if issubclass(origin, ThreadJob) and is_async(handler):
                self.refuse(
                    f"an async handler gets a Job, not a ThreadJob: write `{parameter.name}: "
                    f"Job[...]`"
                )
            hint = (*get_args(hint), Any)[0]
        elif hint not in (Any, object) and not isinstance(hint, TypeVar):
            said = getattr(hint, "__qualname__", str(hint))
            self.refuse(
                f"the argument of the handler is a Job: write `{parameter.name}: Job[{said}]`"
            )
        if hint is object or isinstance(hint, TypeVar):
            hint = Any
        try:
            return hint, decoder_of(hint)
        except Exception as error:  # noqa: BLE001 - msgspec and foreign types raise what they like
            wanted = (
                "a msgspec Struct, a dataclass, a TypedDict, a pydantic model, a builtin or Any"
            )
            self.refuse(
                f"its payload type {getattr(hint, '__qualname__', hint)} cannot be used "
                f"({error}): write {wanted}"
            )

    def _hint(self, handler: Callable[..., Any], parameter: inspect.Parameter) -> Any:
        written = parameter.annotation
        if written is inspect.Parameter.empty:
            return Any
        if not isinstance(written, str):
            return written
        function = inspect.unwrap(handler)
        holder = types.SimpleNamespace(__annotations__={parameter.name: written})
        try:
            # Of the one parameter alone: the others' names may be there for the type checker only.
            return get_type_hints(
                holder, globalns=getattr(function, "__globals__", {}), localns=_closure(function)
            )[parameter.name]
        except Exception as error:  # noqa: BLE001 - an annotation is a piece of a program
            self.refuse(
                f"the annotation {written!r} cannot be resolved ({headline(error)}): import it "
                "outside of TYPE_CHECKING"
            )

    def user_from(self, name: object, payload_type: Any) -> None:
        self.name("user_from", name)
        try:
            members = members_of(payload_type)
        except TypeError as error:
            self.refuse(f"user_from={name!r} names a member of the payload, but {error}")
        if members is None or name in members.values():
            return
        if name in members:
            self.refuse(f"user_from is the name in JSON: write user_from={members[str(name)]!r}")
        self.refuse(
            f"user_from={name!r} is no member of the payload, which has "
            f"{', '.join(sorted(members.values())) or 'none'}"
        )


def is_async(handler: Any) -> bool:
    """Whether a handler is a coroutine function, or an object whose call is one."""
    return any(map(inspect.iscoroutinefunction, (handler, type(handler).__call__)))


def _closure(function: Any) -> dict[str, Any]:
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except (TypeError, ValueError):
        return {}


def _place(handler: object, frame: types.FrameType | None) -> str:
    code = getattr(inspect.unwrap(handler) if callable(handler) else handler, "__code__", None)
    if isinstance(code, types.CodeType):
        return line_of(code.co_filename, code.co_firstlineno)
    return "?" if frame is None else line_of(frame.f_code.co_filename, frame.f_lineno)


def place_of(handler: object) -> str:
    """File and line of a handler."""
    return _place(handler, None)


def _short(value: object) -> str:
    try:
        said = repr(value)
    except Exception:  # noqa: BLE001 - a foreign __repr__
        said = f"a {type(value).__name__}"
    return said if len(said) <= 80 else f"{said[:79]}…"


def _signature(parameters: list[inspect.Parameter]) -> str:
    return f"({', '.join(map(str, parameters))})"
