"""Processes whose clock is wrong, and a Postgres whose clock can be set, by libfaketime (Debian:
apt install faketime); the monotonic clock stays as it is."""

import asyncio
from pathlib import Path

import pytest

from pgqueue.embedded.server import EmbeddedServer

PLACES = ("/usr/lib/*/faketime", "/usr/local/lib/faketime", "/opt/homebrew/lib/faketime")


def wrong_by(offset: str) -> dict[str, str]:
    """Environment for a process whose clock is off: "+1h", "-1h"."""
    return {"LD_PRELOAD": _library(), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _library() -> str:
    for place in PLACES:
        for library in Path("/").glob(f"{place}/libfaketimeMT.so.1"[1:]):
            return str(library)
    pytest.skip("libfaketime is not installed here (Debian: apt install faketime)")


class ServerClock:
    """Of a server that was restarted with a clock that can be set."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._file = server.home / "clock"

    def set(self, offset: str) -> None:
        """Set the server's clock "+0", "+1h" or "-1h" from the machine's; every process of the
        server sees it within a second."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)


async def with_a_clock(server: EmbeddedServer) -> ServerClock:
    """Restarts it, right for now. Its program becomes a script that starts the same under the
    library."""
    library, clock = _library(), ServerClock(server)
    clock.set("+0")
    programs = server.home / "clocked"
    programs.mkdir()
    variables = (
        f"LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={server.home}/clock "
        "FAKETIME_CACHE_DURATION=1"
    )
    script = programs / "postgres"
    script.write_text(
        f"#!/bin/sh\nexec env {variables} FAKETIME_DONT_FAKE_MONOTONIC=1 "
        f'{server.binaries}/postgres "$@"\n'
    )
    for path in (programs, script):
        path.chmod(0o755)
    server.binaries = programs
    await asyncio.to_thread(server.restart)
    return clock
