"""Processes whose clock is wrong, by libfaketime (Debian: apt install faketime); the monotonic clock stays as it is."""

from pathlib import Path

import pytest

PLACES = ("/usr/lib/*/faketime", "/usr/local/lib/faketime", "/opt/homebrew/lib/faketime")


def wrong_by(offset: str) -> dict[str, str]:
    """Environment for a process whose clock is off: "+1h", "-1h"."""
    for place in PLACES:
        for library in Path("/").glob(f"{place}/libfaketimeMT.so.1"[1:]):
            return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    pytest.skip("libfaketime is not installed here (Debian: apt install faketime)")
