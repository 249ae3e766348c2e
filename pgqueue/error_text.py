"""The text of what a handler raised: bounded, and never an error of its own."""

import os
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pgqueue.masking import HALF, cut

UNREADABLE = "(its text cannot be read)"

LONGEST = 40_000
"""Characters that are read of one text."""

LINKS, FRAMES, NOTES, MEMBERS, DEPTH = 10, 40, 5, 5, 3
"""Of a stack trace: exceptions in a chain, frames of each, notes of each, members of a group,
groups within groups."""

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _own(kind: type, name: str) -> Any:
    # The attribute as Python itself stores it: a subclass may put a property of the same name
    # before it.
    return vars(kind)[name].__get__


_name = _own(type, "__name__")
_cause, _context = _own(BaseException, "__cause__"), _own(BaseException, "__context__")
_suppressed, _trace = (
    _own(BaseException, "__suppress_context__"),
    _own(BaseException, "__traceback__"),
)
_members = _own(BaseExceptionGroup, "exceptions")


def text_of(value: object, most: int = LONGEST) -> str:
    """str(value), cut, as a plain str. UNREADABLE when str() raises."""
    try:
        return cut(str.__getitem__(str(value), slice(most + HALF)), most)
    except BaseException:  # noqa: BLE001 - a foreign __str__ may raise KeyboardInterrupt, too
        return UNREADABLE


def name_of(error: BaseException) -> str:
    """The name of its class."""
    name: str = _name(type(error))
    return name[:200] or "(an exception without a name)"


def headline(error: BaseException) -> str:
    """Name and text, as in the last line of a traceback."""
    return f"{name_of(error)}: {text_of(error)}".rstrip(": ")


def line_of(file: str, line: int) -> str:
    """A line of a program as people find it: from the working directory, if it is below that."""
    short = os.path.relpath(file)
    return f"{file if short.startswith(os.pardir) else short}:{line}"


def cause_of(error: BaseException) -> BaseException | None:
    """What it was raised from."""
    cause: BaseException | None = _cause(error)
    return cause


def stack_of(error: BaseException) -> str:
    """A traceback as Python prints it, with the newest of a chain and the first of a group."""
    try:
        return "".join(_chain(error, 0))
    except BaseException:  # noqa: BLE001 - a foreign class may raise anything
        return f"{name_of(error)}: the traceback cannot be read\n"


def _chain(error: BaseException, depth: int) -> Iterator[str]:
    links = list(_links(error))
    if len(links) == LINKS:
        yield "(earlier exceptions are not shown)\n\n"
    for link, joint in reversed(links):
        if frames := list(_frames(_trace(link))):
            yield "Traceback (most recent call last):\n"
            yield from frames
        yield f"{headline(link)}\n"
        yield from _notes(link)
        if issubclass(type(link), BaseExceptionGroup):
            yield from _group(link, depth)
        yield joint


def _links(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The error and what led to it, newest first, each with the words that join it to the one
    before."""
    seen: set[int] = set()
    link: BaseException | None = error
    joint = ""
    while link is not None and id(link) not in seen and len(seen) < LINKS:
        seen.add(id(link))
        yield link, joint
        if (cause := _cause(link)) is not None:
            link, joint = cause, _CAUSED
        else:
            link, joint = None if _suppressed(link) else _context(link), _MEANWHILE


def _frames(trace: TracebackType | None) -> Iterator[str]:
    try:
        yield from traceback.StackSummary.extract(traceback.walk_tb(trace), limit=-FRAMES).format()
    except BaseException:  # noqa: BLE001 - source lines come from the loaders of foreign modules
        yield "  (the frames cannot be read)\n"


def _notes(error: BaseException) -> Iterator[str]:
    try:
        notes = list(getattr(error, "__notes__", ()))[:NOTES]
    except BaseException:  # noqa: BLE001 - anything may have been put there
        return
    for note in notes:
        yield f"{text_of(note, 1000)}\n"


def _group(group: BaseException, depth: int) -> Iterator[str]:
    if depth >= DEPTH:
        yield "  (deeper groups are not shown)\n"
        return
    members = _members(group)
    for number, member in enumerate(members[:MEMBERS], 1):
        yield f"  ---- {number} of {len(members)} ----\n"
        yield "".join(
            f"  {line}" for line in "".join(_chain(member, depth + 1)).splitlines(keepends=True)
        )
