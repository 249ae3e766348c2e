"""A Postgres server of our own, for `dev`, `demo` and tests: on loopback, behind a random password,
gone when we are."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from pgqueue.embedded.binaries import ServerUnavailable, bindir, bindir_for, bindirs
from pgqueue.embedded.unprivileged import (
    Identity,
    claim,
    reachable,
    server_identity,
    temporary_home,
)
from pgqueue.embedded.watchdog import Watcher

__all__ = ["EmbeddedServer", "ServerUnavailable", "bindir", "bindirs"]

Mode = Literal["fast", "immediate"]

_STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_PASSING = re.compile(r"could not bind|Address already in use|pre-existing shared memory block")
"""Reasons not to start that pass: another process took the port, or children of a killed postmaster
are still ending."""


class EmbeddedServer:
    """One server process, started as our child and ended by its pid.

    `settings` are lines of postgresql.conf; changes count from the next start. With `home`, data,
    password and log stay there for the next time; without it everything is temporary, in a new
    folder `within` that one (TMPDIR). `binaries` is a folder as `bindir()` gives it.

        with EmbeddedServer({"fsync": "off"}) as server:
            psycopg.connect(server.url())

    Raises ServerUnavailable, with the end of the server's log, when there is no server to be had.
    Port and password stay the same over restarts. Once started, `binaries` is where its programs
    are, psql among them. Use it from one thread at a time.
    """

    host = "127.0.0.1"
    user = "postgres"

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        home: Path | None = None,
        within: Path | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.settings = dict(settings or {})
        self.port = int(str(self.settings.pop("port", 0)))
        self.password = ""
        self.binaries = Path()
        self._home = home
        self._within = within
        self._temporary = home is None
        self._binaries = binaries
        self._identity: Identity | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: Watcher | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the postmaster, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def home(self) -> Path:
        """The folder with data and log."""
        if self._home is None:
            raise ServerUnavailable("the server has not been started")
        return self._home

    @property
    def log(self) -> Path:
        """What the server said, over all its starts."""
        return self.home / "log"

    def url(self, database: str = "postgres", user: str = user, password: str | None = None) -> str:
        """Without a password, the superuser's."""
        secret = quote(self.password if password is None else password, safe="")
        login = f"{quote(user, safe='')}:{secret}"
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Returns when the server takes connections, crash recovery included (up to a minute)."""
        if self.pid:
            return
        if self._watcher is None:
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise
        fixed = bool(self.port)
        deadlines = time.monotonic() + 10
        while True:
            self.port = self.port if fixed else _free_port()
            said = self._launch()
            if said is None:
                return
            if not _PASSING.search(said) or time.monotonic() > deadlines:
                raise ServerUnavailable(
                    f"Postgres does not start. The end of its log:\n{said[-3000:]}"
                )
            time.sleep(0.1)

    def stop(self, mode: Mode = "fast") -> None:
        """Ends the server. `fast` ends sessions and writes a checkpoint, `immediate` leaves
        recovery to the next start."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(_STOP[mode])
            for harsher in (signal.SIGQUIT, signal.SIGKILL):
                try:
                    self._process.wait(30)
                    break
                except subprocess.TimeoutExpired:
                    self._process.send_signal(harsher)
        self._ended()

    def restart(self, mode: Mode = "fast") -> None:
        """Stops, and starts on the same port."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL to the postmaster, as the kernel does when memory runs out; its children notice
        and end."""
        if self._process:
            self._process.kill()
        self._ended()

    def close(self) -> None:
        """Ends the server and, without a `home` of its own, removes all it left."""
        self.stop("immediate" if self._temporary else "fast")
        if self._watcher:
            self._watcher.close()
            self._watcher = None
        if self._home:
            _remove(self._home if self._temporary else self._home / "programs")
        if self._temporary:
            self._home = None

    def _prepare(self) -> None:
        self._identity = server_identity()
        home = self._home = (
            self._home.resolve() if self._home else temporary_home(self._identity, self._within)
        )
        claim(home, self._identity)
        self._watcher = Watcher(home, keep=not self._temporary)
        self.binaries = reachable(self._binaries or bindir_for(home / "data"), self._identity, home)
        if not (home / "data").exists():
            self._initialise()
        self.password = (home / "password").read_text()

    def _tell_watcher(self, pid: int | None) -> None:
        if self._watcher:
            self._watcher.tell(pid)

    def _initialise(self) -> None:
        """Makes data and password; data gets its name last, so that a half-made one is never taken
        for whole."""
        made, password = self.home / "data.new", self.home / "password"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        password.unlink(missing_ok=True)
        with open(password, "x", opener=_private) as file:
            file.write(secrets.token_urlsafe(24))
        if self._identity:
            for path in (made, password):
                os.chown(path, self._identity.uid, self._identity.gid)
        options = [
            "--auth=scram-sha-256",
            "--locale=C",
            "--encoding=UTF8",
            *(["--no-sync"] if self._temporary else []),
        ]
        initdb = self._spawn(
            "initdb",
            f"--pgdata={made}",
            f"--username={self.user}",
            f"--pwfile={password}",
            *options,
        )
        try:
            failed = initdb.wait() != 0
        finally:
            initdb.kill()
        if failed:
            raise ServerUnavailable(
                f"initdb failed. The end of what it said:\n{self._said(0)[-3000:]}"
            )
        if self._identity:
            os.chown(password, 0, 0)
        made.rename(self.home / "data")

    def _launch(self) -> str | None:
        """Starts the server once. None when it is ready, else what it said."""
        lines = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
            **self.settings,
        }
        text = "".join(
            f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n"
            for name, value in lines.items()
        )
        configuration = self.home / "postgresql.conf"
        configuration.write_text("include 'data/postgresql.conf'\n" + text)
        configuration.chmod(0o644)
        mark = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._spawn(
            "postgres", "-D", str(self.home / "data"), f"--config-file={configuration}"
        )
        self._tell_watcher(self._process.pid)
        deadlines = time.monotonic() + 60
        while self._process.poll() is None:
            if self._ready(self._process.pid):
                return None
            if time.monotonic() > deadlines:
                self.stop("immediate")
                return f"{self._said(mark)}\nnot ready after a minute"
            time.sleep(0.01)
        self._ended()
        return self._said(mark)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C on the terminal is for us, and the server outlives it until
        # we have stopped working. Nothing of our environment: PGPORT and its like would be taken
        # for settings.
        who = self._identity
        passed = {
            name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TZ") if name in os.environ
        }
        with open(self.log, "ab", opener=_private) as log:
            return subprocess.Popen(
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", **passed},
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=[] if who else None,
                start_new_session=True,
            )

    def _ready(self, pid: int) -> bool:
        try:
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

    def _said(self, mark: int) -> str:
        with self.log.open("rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace").strip()

    def _ended(self) -> None:
        if self._process:
            self._process.wait()
            self._process = None
            self._tell_watcher(None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(folder: Path) -> None:
    # Children of a killed postmaster may be writing yet, for a moment.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((EmbeddedServer.host, 0))
        port: int = probe.getsockname()[1]
        return port
