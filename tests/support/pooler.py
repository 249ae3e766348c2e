"""PgBouncer in transaction mode, started by the tests that want it between themselves and
Postgres."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.logins import GROUPS

NOBODY = 65534


def pgbouncer() -> str:
    """Its program; the test is skipped where there is none."""
    found = shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if found is None:
        pytest.skip("pgbouncer is not installed here (Debian: apt install pgbouncer)")
    return found


class Pooler:
    """A PgBouncer whose clients keep their URL whatever happens to it."""

    def __init__(self, url: str, home: Path, mode: str = "transaction") -> None:
        parts, port = urlsplit(url), _free_port()
        self.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        home.mkdir()
        logins = [str(parts.username), *GROUPS]
        (home / "users.txt").write_text(
            "".join(f'"{login}" "{parts.password}"\n' for login in logins)
        )
        (home / "pgbouncer.ini").write_text(
            f"""[databases]
* = host={parts.hostname} port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {home}/users.txt
pool_mode = {mode}
default_pool_size = 4
max_client_conn = 200
logfile = {home}/log
"""
        )
        if os.geteuid() == 0:
            for path in (home, *home.iterdir()):
                os.chown(path, NOBODY, NOBODY)

    async def start(self) -> None:
        """Returns when it lets connections through."""
        _let_through(self._home)
        as_nobody = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        self._process = await asyncio.create_subprocess_exec(
            pgbouncer(), "-q", str(self._home / "pgbouncer.ini"), cwd="/", **as_nobody
        )
        await _answers(self.url, self._process, self._home)

    def reload(self) -> None:
        assert self._process
        _let_through(self._home)
        self._process.send_signal(signal.SIGHUP)

    async def restart(self, *, kill: bool = False) -> None:
        """All its clients lose their connections."""
        await self.stop(kill=kill)
        await self.start()

    async def stop(self, *, kill: bool = False) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            await self._process.wait()


@asynccontextmanager
async def a_pooler(url: str, folder: Path, mode: str = "transaction") -> AsyncIterator[Pooler]:
    """The same database through a pool of four server connections."""
    pgbouncer()
    pooler = Pooler(url, folder / "pgbouncer", mode)
    try:
        await pooler.start()
        yield pooler
    finally:
        await pooler.stop()


@asynccontextmanager
async def pooled(url: str, folder: Path, mode: str = "transaction") -> AsyncIterator[str]:
    """The URL of the same."""
    async with a_pooler(url, folder, mode) as pooler:
        yield pooler.url


def _let_through(folder: Path) -> None:
    # pytest's folders are closed to others, and closed again by each run of pytest; nobody must get
    # through to its own.
    if os.geteuid() != 0:
        return
    for parent in folder.parents:
        if (
            parent.stat().st_uid == os.geteuid()
            and parent != Path("/")
            and not parent.stat().st_mode & 0o001
        ):
            parent.chmod(parent.stat().st_mode | 0o011)


async def _answers(url: str, process: asyncio.subprocess.Process, home: Path) -> None:
    for _ in range(200):
        try:
            async with await psycopg.AsyncConnection.connect(url, prepare_threshold=None):
                return
        except psycopg.OperationalError:
            if process.returncode is not None:
                break
            await asyncio.sleep(0.05)
    raise AssertionError(
        f"pgbouncer did not start: {(home / 'log').read_text() if (home / 'log').exists() else ''}"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
