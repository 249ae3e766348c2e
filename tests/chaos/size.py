"""How large the tests are: CHAOS is small, full, or a number between (0 is small, 1 is full)."""

import asyncio
import contextlib
import os

SIZES = {"": 0.0, "small": 0.0, "full": 1.0}


def size() -> float:
    said = os.environ.get("CHAOS", "")
    return SIZES[said] if said in SIZES else float(said)


def scale(small: float, full: float) -> float:
    """That far from the small size to the full one."""
    return small + (full - small) * size()


def many(small: int, full: int) -> int:
    return round(scale(small, full))


async def span(seconds: float) -> None:
    """Lets that much time pass: between two faults, or as the work that a handler does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
