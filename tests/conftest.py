"""The Postgres of the tests: one server per test process and major version, a fresh database for
every test.

A test that takes `database_url`, `connection` or `settings` gets a clone of a migrated template (20
ms), removed afterwards; end your own processes before. What takes `settings` is a program, with a
program's rights (tests/support/logins.py). `@pytest.mark.postgres(15, 18)` runs a test on these
versions of the server, and skips those that are not installed; without it a test runs on the
embedded one. Tests that harm the server take one of their own: `with EmbeddedServer() as server`,
and `migrate(server.url())`. What is logged is read (tests/support/logged.py).
"""

import asyncio
import faulthandler
import functools
import inspect
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from pytest_postgresql.factories import postgresql_noproc
from pytest_postgresql.janitor import DatabaseJanitor

from pgqueue import known_secrets as secrecy
from pgqueue.database.migrations import migrate
from pgqueue.embedded.binaries import bindir, bindirs, version_of
from pgqueue.embedded.server import EmbeddedServer
from tests.support.logged import complain, leaks
from tests.support.logged import ears as ears
from tests.support.logged import what_is_logged_is_read as what_is_logged_is_read
from tests.support.logins import OWNED, make_logins, url_of

FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    "max_wal_size": "256MB",
}
"""What a crash of the machine would take is no matter here. Durability tests start a server without
these."""


class Server(EmbeddedServer):
    """With what else pytest-postgresql reads from the fixture that it depends on."""

    options = ""
    maintenance_dbname = "postgres"
    template_dbname = None


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what it starts in the background; programs that tests start and
        # interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "postgres(*majors): run on these major versions of Postgres, where they are installed",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("postgres")
    if marker and "postgres_major" in metafunc.fixturenames:
        metafunc.parametrize(
            "postgres_major", marker.args, ids=[f"pg{major}" for major in marker.args]
        )


def pytest_itemcollected(item: pytest.Item) -> None:
    """An async test that waits for what does not come is cancelled, in time for its fixtures to be
    taken down.

    pytest-timeout, which comes after it, leaves the test waiting in the event loop: its worker and
    its database stay.
    """
    if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return
    marker = item.get_closest_marker("timeout")
    seconds = 0.8 * float(
        marker.args[0]
        if marker
        else item.config.getoption("timeout") or item.config.getini("timeout")
    )
    test = item.obj

    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    item.obj = bounded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Ends this process, with all stacks, when fixtures of a test hang: pytest-timeout no longer
    watches a test that has failed, and a run of all tests would never end."""
    faulthandler.dump_traceback_later(120, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def secrets_are_forgotten() -> Iterator[None]:
    """What one test made the process keep secret is a word like another in the next: the secrets
    are the process's."""
    known = secrecy._known
    yield
    secrecy._known = known


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def newest_major() -> int:
    """The version that tests run on when they say nothing: the embedded server's, as a rule."""
    return version_of(bindir()) or 0


@pytest.fixture(scope="session")
def installed() -> dict[int, Path]:
    """Major version -> its programs."""
    return bindirs()


@pytest.fixture
def postgres_major(newest_major: int) -> int:
    return newest_major


def a_server(major: int) -> Any:
    @pytest.fixture(scope="session", name=f"pg_server_{major}")
    def server(installed: dict[int, Path]) -> Iterator[Server]:
        if major not in installed:
            pytest.skip(f"Postgres {major} is not installed here")
        name = f"pgqueue-tests-{major}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
        with Server(
            {**FAST, "cluster_name": name}, binaries=installed[major], within=in_memory()
        ) as running:
            yield running
            complain(leaks(running.log.read_text(errors="replace"), {running.password}))

    return server


def in_memory() -> Path | None:
    """Where a database is cloned in 20 ms instead of 100 to 300, if there is such a place with room
    to run programs in."""
    memory = Path("/dev/shm")
    if (
        not memory.is_dir()
        or shutil.disk_usage(memory).free < 2 << 30
        or os.statvfs(memory).f_flag & os.ST_NOEXEC
    ):
        return None
    return memory


def run_migrations(*, autocommit: bool, **where: Any) -> None:
    asyncio.run(migrate(make_conninfo(**where)))


def a_template(major: int) -> Callable[..., Any]:
    return postgresql_noproc(depends_on=f"pg_server_{major}", load=[run_migrations, make_logins])


pg_server_15, template_15 = a_server(15), a_template(15)
pg_server_16, template_16 = a_server(16), a_template(16)
pg_server_17, template_17 = a_server(17), a_template(17)
pg_server_18, template_18 = a_server(18), a_template(18)


@pytest.fixture
def pg_server(request: pytest.FixtureRequest, postgres_major: int) -> Server:
    """The server of this test. Shared with others: leave it running, and its settings as they
    are."""
    server: Server = request.getfixturevalue(f"pg_server_{postgres_major}")
    return server


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, pg_server: Server, postgres_major: int
) -> Iterator[str]:
    """A database of this test's own, migrated. The URL is its owner's; the programs have logins of
    their own (tests/support/logins.py)."""
    template = request.getfixturevalue(f"template_{postgres_major}").template_dbname
    name = f"{OWNED}{uuid.uuid4().hex[:12]}"
    where: dict[str, Any] = {
        "host": pg_server.host,
        "port": pg_server.port,
        "user": pg_server.user,
        "password": pg_server.password,
    }
    with DatabaseJanitor(dbname=name, template_dbname=template, **where):
        yield pg_server.url(name)


@pytest.fixture
def empty_database_url(pg_server: Server) -> Iterator[str]:
    """A database that was never migrated."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    where: dict[str, Any] = {
        "host": pg_server.host,
        "port": pg_server.port,
        "user": pg_server.user,
        "password": pg_server.password,
    }
    with DatabaseJanitor(dbname=name, **where):
        yield pg_server.url(name)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """To look from outside, and to set the scene: each statement commits."""
    async with await psycopg.AsyncConnection.connect(
        database_url, autocommit=True
    ) as open_connection:
        yield open_connection


@pytest.fixture
def settings(database_url: str) -> ServiceSettings:
    """For that database, and impatient. Not as its owner: what takes settings is a program."""
    return ServiceSettings(
        database_url=url_of("queue_program", database_url),
        poll_interval=timedelta(milliseconds=20),
        idle_interval=timedelta(milliseconds=100),
        shutdown_timeout=timedelta(seconds=2),
        enqueue_timeout=timedelta(seconds=30),
        drain=timedelta(),
        host="127.0.0.1",
        port=0,
    )
