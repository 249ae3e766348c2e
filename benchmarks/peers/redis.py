"""A Redis of a run's own, from Debian's package, on a free port, with an append-only file."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.peers.install import NotInstalled

SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
}


def program() -> str:
    """redis-server; installed where we may. Raises NotInstalled."""
    if not shutil.which("redis-server") and os.geteuid() == 0 and shutil.which("apt-get"):
        # Debian's package starts a server of its own, unless it believes that the system is
        # starting up.
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(
            ["apt-get", "-qq", "-y", "install", "redis-server"],
            env=quiet,
            capture_output=True,
            check=False,
        )
    if found := shutil.which("redis-server"):
        return found
    raise NotInstalled("there is no redis-server: apt install redis-server")


def version() -> str:
    said = subprocess.run(
        [program(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return next((word[2:] for word in said.split() if word.startswith("v=")), said.strip())


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """The address of an empty server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="pgqueue-redis-") as folder:
        words = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
        process = await asyncio.create_subprocess_exec(
            program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await _ready(port, Path(folder))
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


async def _ready(port: int, folder: Path) -> None:
    for _ in range(500):
        try:
            if await ask(f"redis://127.0.0.1:{port}", "PING") == "PONG":
                return
        except OSError:
            pass
        await asyncio.sleep(0.02)
    raise NotInstalled(f"Redis does not start in {folder}")


async def ask(url: str, command: str) -> str:
    """The answer to an inline command that is one line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(f"{command}\r\n".encode())
    line = (await reader.readline()).decode().strip()
    writer.close()
    return line[1:]
