"""Where a test takes place: a durable Postgres of its own with the queue, its roles and the ledger,
and files for the books."""

import itertools
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from pgqueue_service.settings import ServiceSettings

from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import migrate
from pgqueue.discovery import load_tasks
from pgqueue.embedded.server import EmbeddedServer
from tests.chaos.ledger import Ledger, install, read

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": 300,
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
}
"""Nothing that was answered may be missing after a crash."""

SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "max_connections",
)
ROLES = (files("pgqueue.sql") / "roles.sql").read_text()
PASSWORD = "secret"
MODULES = ("tests.chaos.tasks", "tests.chaos.odd_tasks", "pgqueue_service.notifications")


class Login(NamedTuple):
    name: str
    url: str


class Site:
    """`server` may be harmed at will. What ends before the books are read has to be ended by the
    test."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.accepted = folder / "accepted"
        self.accepted.mkdir()
        self.effects = folder / "effects"
        self.everybody: Login | None = None
        """The login of all processes, where they cannot have one each."""
        self.settings_shown: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._connection: psycopg.Connection[Any] | None = None

    async def set_up(self) -> None:
        await migrate(self.url)
        tasks, _ = load_tasks(MODULES)
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute(ROLES.encode())
            await publish(connection, declarations(tasks.values(), ServiceSettings()))
        install(self.url)
        self.settings_shown = {name: self.value(f"SHOW {name}") for name in SHOWN}

    @property
    def url(self) -> str:
        """The superuser's, past every proxy."""
        return self.server.url()

    def login(self, group: str, address: str | None = None) -> Login:
        """A new role in one of the groups of sql/roles.sql, and its URL: there, or at the address
        (host:port) of a proxy."""
        if self.everybody:
            return self.everybody
        name = f"{group.removeprefix('pgqueue_')}_{next(self._numbers)}"
        self.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE {group}")
        return Login(name, via(self.server.url(user=name, password=PASSWORD), address))

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As the superuser. Raises OperationalError while the server is away."""
        for _ in range(2):  # the connection may have been lost to a fault since it was used last
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self.url, autocommit=True, application_name="test"
                )
            try:
                cursor = self._connection.execute(statement.encode(), parameters or None)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self._connection.close()
        raise psycopg.OperationalError("the server is away")

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value of a statement's one row."""
        ((only,),) = self.rows(statement, *parameters)
        return only

    def live(self, apart_from: Collection[str] = ()) -> int:
        """Jobs that have not ended."""
        statement = (
            "SELECT count(*) FROM job_logs WHERE processed_at IS NULL AND job_id <> ALL (%s)"
        )
        return int(self.value(statement, list(apart_from)))

    def ledger(self) -> Ledger:
        return read(self.url, self.accepted, self.effects)


def via(url: str, address: str | None) -> str:
    """The same database at another address."""
    return url if address is None else url.replace(urlsplit(url).netloc.rpartition("@")[2], address)
