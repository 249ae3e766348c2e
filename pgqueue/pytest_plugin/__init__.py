"""The pytest plugin of pgqueue: databases and clients for the tests of an application. Installed as
`pytest_pgqueue`, outside of the package, so that a test run that uses none of it does not import
pgqueue; only fixtures do.

The tests need a Postgres server on which they may create databases: the ini option
`pgqueue_server_url`, else PGQUEUE_TEST_SERVER_URL, else a server of the extra `embedded` that is
started for the run. Each test that asks for it gets a fresh database with the schema of pgqueue, in
which the types of `pgqueue_tasks` are published; override that fixture:

    @pytest.fixture(scope="session")
    def pgqueue_tasks():
        return [resize]

    def test_upload(pgqueue_client):
        upload("a.png", client=pgqueue_client)
        assert_enqueued(pgqueue_client, resize, user_id="u1")
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from pgqueue import AsyncClient, Client, Task  # at run time only in fixtures: see above

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""What a crash of the machine would lose does not matter to tests."""

MISSING = (
    "pgqueue's fixtures need a Postgres server: set pgqueue_server_url in pytest's configuration, "
    'or PGQUEUE_TEST_SERVER_URL, or install "pgqueue-jobs[embedded]"'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "pgqueue_server_url",
        "URL of a Postgres server on which the tests may create databases",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    # An async fixture belongs to the plugin that runs async tests: anyio takes pytest's own, and
    # pytest-asyncio its own.
    fixture: Any = pytest.fixture
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio  # type: ignore[import-not-found,unused-ignore]  # then it is there

        fixture = pytest_asyncio.fixture
    awaiting = ModuleType("pytest_pgqueue_async")
    awaiting.pgqueue_async_client = fixture(_async_client, name="pgqueue_async_client")  # type: ignore[attr-defined]  # a module for pytest to look into
    config.pluginmanager.register(awaiting, "pgqueue-async")


@pytest.fixture(scope="session")
def pgqueue_server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Postgres server on which the tests may create databases."""
    given = request.config.getini("pgqueue_server_url") or os.environ.get("PGQUEUE_TEST_SERVER_URL")
    if given:
        yield str(given)
        return
    from pgqueue.embedded.binaries import bindir
    from pgqueue.embedded.server import EmbeddedServer

    try:
        bindir()
    except Exception as error:  # noqa: BLE001 - the advice is the same for every cause
        pytest.fail(f"{MISSING} ({error})", pytrace=False)
    with EmbeddedServer(FAST) as server:
        yield server.url()


@pytest.fixture(scope="session")
def pgqueue_tasks() -> "list[Task[Any]]":
    """Tasks whose job types are published in each database. Override it."""
    return []


@pytest.fixture(scope="session")
def pgqueue_template(pgqueue_server_url: str, pgqueue_tasks: "list[Task[Any]]") -> Iterator[str]:
    """Name of the database that those of the tests are copies of."""
    from pgqueue.database.job_types import declarations, publish
    from pgqueue.database.migrations import migrate
    from pgqueue.database.session import connected
    from pgqueue.settings import Settings

    async def fill(url: str) -> None:
        await migrate(url)
        async with await connected(url) as connection:
            await publish(connection, declarations(pgqueue_tasks, Settings(database_url=url)))

    name = f"pgqueue_template_{uuid.uuid4().hex[:12]}"
    _on_server(pgqueue_server_url, f'CREATE DATABASE "{name}"')
    try:
        asyncio.run(fill(_url_of(pgqueue_server_url, name)))
        yield name
    finally:
        _on_server(pgqueue_server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def pgqueue_url(pgqueue_server_url: str, pgqueue_template: str) -> Iterator[str]:
    """URL of a fresh database with the schema of pgqueue; it is dropped after the test."""
    name = f"pgqueue_test_{uuid.uuid4().hex[:12]}"
    _on_server(pgqueue_server_url, f'CREATE DATABASE "{name}" TEMPLATE "{pgqueue_template}"')
    try:
        yield _url_of(pgqueue_server_url, name)
    finally:
        _on_server(pgqueue_server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def pgqueue_client(pgqueue_url: str) -> "Iterator[Client]":
    """A blocking Client on that database."""
    from pgqueue import Client

    with Client.open(pgqueue_url) as client:
        yield client


async def _async_client(pgqueue_url: str) -> "AsyncIterator[AsyncClient]":
    """An AsyncClient on that database, for tests that anyio or pytest-asyncio runs."""
    from pgqueue import AsyncClient

    async with AsyncClient.open(pgqueue_url) as client:
        yield client


def _on_server(url: str, statement: Any) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _url_of(server: str, database: str) -> str:
    return urlsplit(server)._replace(path=f"/{database}").geturl()
