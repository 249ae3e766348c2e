"""Entries of API processes and workers in job_workers: started, alive, stopped."""

import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from pgqueue.database.adapters import Parameters
from pgqueue.database.job_types import fingerprints
from pgqueue.task import Declaration


def process_name() -> str:
    """host-pid-chance: never the same for two processes, even where a pid comes again."""
    return f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(3)}"


Run = Callable[[str, Parameters], Awaitable[object]]
"""Runs a statement of sql/queries/ by its name."""


async def register(run: Run, entered: Parameters) -> None:
    """Enters a process into the registry; again, it is a sign of life."""
    await run("register_worker", entered)


async def retire(run: Run, name: str) -> None:
    """Takes a process out of it, and those that have been silent for a day."""
    await run("retire_worker", {"worker": name})


def entry(
    name: str,
    kind: str,
    release: str,
    queues: Mapping[str, int],
    declared: list[Declaration],
    *,
    lease: timedelta | None = None,
    **detail: Any,
) -> dict[str, Any]:
    """What `register` is given. lease: how long a worker's claims hold."""
    return {
        "worker": name,
        "kind": kind,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "release": release,
        "queues": msgspec.json.encode(queues).decode(),
        "types": msgspec.json.encode(fingerprints(declared)).decode(),
        "lease": lease,
        "detail": msgspec.json.encode(detail).decode(),
    }
