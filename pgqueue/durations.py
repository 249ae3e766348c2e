"""Durations as people write them: seconds, a timedelta, or a text such as "500ms", "30s", "10m",
"1h", "7d"."""

import re
from datetime import timedelta

Duration = float | int | timedelta | str

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)[ \t]*(ms|s|m|h|d|)")
_LONGEST_TEXT = 40
"""Characters. A number with more digits is none that fits, and a long text is not worth its
repetition in an error."""
_LONGEST = timedelta(days=36500)


def duration(value: Duration) -> timedelta:
    """The duration as a timedelta. ValueError when it is not one, is negative, or is longer than a
    hundred years."""
    if isinstance(value, str):
        stripped = value.strip()
        match = _WRITTEN.fullmatch(stripped) if len(stripped) <= _LONGEST_TEXT else None
        if not match:
            raise ValueError(
                f'not a duration: {value[:_LONGEST_TEXT]!r} (write "30s", "10m", "1h", "7d" or '
                "seconds)"
            )
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise ValueError(f"not a duration: {value!r}")
    try:
        result = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise ValueError(f"not a duration: {value!r}") from None
    if not timedelta() <= result <= _LONGEST:
        raise ValueError(f"a duration is between 0 and 100 years, not {value!r}")
    return result


def spoken(value: timedelta) -> str:
    """The shortest of the spellings above: 90 s is "90s", 2 h is "2h"."""
    seconds = value.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds * 1000:g}ms" if 0 < seconds < 1 else f"{seconds:g}s"
