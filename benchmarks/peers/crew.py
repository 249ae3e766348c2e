"""Processes of a peer, and what they say (programs/protocol.py)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import AsyncConnection

from benchmarks.jobs import one
from benchmarks.peers.catalog import Peer
from benchmarks.peers.install import command, environment
from benchmarks.peers.redis import ask
from benchmarks.server import environment as clean_environment


class Failed(Exception):
    """A program of a peer did not do what it was asked."""


@dataclass
class Said:
    """What one process has said so far. Times are in ns of the monotonic clock."""

    ready: int = 0
    first: int = 0
    done: int = 0
    seconds: float = 0.0
    started: dict[int, int] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)

    def hear(self, line: str) -> None:
        match line.split():
            case ["ready", moment]:
                self.ready = int(moment)
            case ["first", moment]:
                self.first = int(moment)
            case ["done", count]:
                self.done = int(count)
            case ["seconds", seconds]:
                self.seconds = float(seconds)
            case ["start", number, moment]:
                self.started.setdefault(int(number), int(moment))
            case ["sent", number, moment]:
                self.sent[int(number)] = int(moment)


async def _spawn(
    peer: Peer, url: str, log: Path, *words: str
) -> tuple[asyncio.subprocess.Process, Said, asyncio.Task[None]]:
    said = Said()
    settings = {**environment(peer), "BENCH_URL": url}
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command(peer), *words, env=clean_environment(url, settings), cwd=log.parent,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said.hear(line.decode(errors="replace"))

    return process, said, asyncio.create_task(listen())


async def call(peer: Peer, url: str, log: Path, *words: str, limit: float = 600) -> Said:
    """Runs one command of the peer's program to its end."""
    process, said, listening = await _spawn(peer, url, log, *words)
    try:
        async with asyncio.timeout(limit):
            await process.wait()
    except TimeoutError:
        raise Failed(f"{' '.join(words)} took longer than {limit:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await listening
    if process.returncode != 0:
        raise Failed(f"{' '.join(words)} ended with {process.returncode}: {_last(log)}")
    return said


@asynccontextmanager
async def workers(peer: Peer, url: str, log: Path, count: int) -> AsyncIterator[list[Said]]:
    """So many worker processes, started at once; ended without ceremony, for nothing of theirs is
    needed any more."""
    crew = [await _spawn(peer, url, log, "worker") for _ in range(count)]
    try:
        yield [said for _, said, _ in crew]
    finally:
        for process, _, listening in crew:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await listening


async def until(what: str, true: Callable[[], bool], limit: float) -> None:
    """Waits until `true()` says so, looking every few milliseconds."""
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.005)


async def unfinished(peer: Peer, url: str) -> int:
    """Jobs that have not ended, as the store has it."""
    if peer.store == "redis":
        return sum([int(await ask(url, command.strip())) for command in peer.unfinished.split(";")])
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return int(await one(connection, peer.unfinished))


def _last(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
