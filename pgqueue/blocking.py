"""Runs a coroutine that never suspends. What a blocking client and an awaiting one have in common
is written once, as coroutines over an I/O layer; where that layer blocks, they end in one step."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns. Raises what it raises, and RuntimeError when it waits for
    an event loop, which is a mistake in pgqueue."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for an event loop in a blocking client")
