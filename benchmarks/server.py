"""The Postgres of a run: a server of our own, durable, with settings as in production; a fresh
database for every measurement."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from benchmarks.processes import cpu_seconds
from pgqueue.database.migrations import migrate
from pgqueue.embedded.binaries import ServerUnavailable, bindirs
from pgqueue.embedded.server import EmbeddedServer

SETTINGS: dict[str, object] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "min_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum": "on",
    "max_connections": 300,
    "random_page_cost": "1.1",
    "effective_cache_size": "2GB",
    "work_mem": "16MB",
    "track_io_timing": "off",
}
"""What a server of this size is given in production. max_wal_size is large so that no checkpoint
falls into one side alone."""

SHOWN = (*SETTINGS, "wal_level", "wal_compression", "jit", "huge_pages")


class Postgres:
    """One running server. `database()` gives clones of a migrated template, each for one
    measurement."""

    def __init__(self, major: int | None = None, within: Path | None = None) -> None:
        found = bindirs()
        if major is not None and major not in found:
            raise ServerUnavailable(
                f"Postgres {major} is not installed here; there is: "
                f"{', '.join(map(str, sorted(found)))}"
            )
        self.server = EmbeddedServer(
            SETTINGS, binaries=found[major] if major else None, within=within
        )
        self.version = ""
        self.settings: dict[str, str] = {}

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)
        async with self.admin() as connection:
            await connection.execute("CREATE DATABASE pgqueue_template")
            cursor = await connection.execute("SELECT version()")
            self.version = (await cursor.fetchall())[0][0]
            cursor = await connection.execute(
                (
                    "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s) "
                    "ORDER BY name"
                ),
                [list(SHOWN)],
            )
            self.settings = dict(await cursor.fetchall())
        await migrate(self.server.url("pgqueue_template"))

    def stop(self) -> None:
        self.server.close()

    @property
    def binaries(self) -> Path:
        return self.server.binaries

    def cpu_seconds(self) -> float:
        """Processor time that the server has used so far, its ended sessions included."""
        return cpu_seconds(self.server.pid) if self.server.pid else 0.0

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AsyncConnection[Any]]:
        async with await AsyncConnection.connect(self.server.url(), autocommit=True) as connection:
            yield connection

    @asynccontextmanager
    async def database(self, *, empty: bool = False) -> AsyncIterator[str]:
        """The URL of a new database, dropped afterwards with whoever is still in it. `empty`:
        without pgqueue's schema."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        template = "template1" if empty else "pgqueue_template"
        async with self.admin() as connection:
            await connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        try:
            yield self.server.url(name)
        finally:
            async with self.admin() as connection:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def change(self, **settings: object) -> None:
        """Settings that a reload is enough for."""
        async with self.admin() as connection:
            for name, value in settings.items():
                await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            await connection.execute("SELECT pg_reload_conf()")
        async with self.admin() as connection:
            for name, value in settings.items():
                while (await (await connection.execute(f"SHOW {name}")).fetchall())[0][0] != str(
                    value
                ):
                    await asyncio.sleep(0.02)


def environment(url: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a process of ours: nothing of the caller's settings, and what we say."""
    foreign = ("PGQUEUE_", "DATABASE_", "SMTP_", "MAIL_", "SENDGRID_", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"DATABASE_URL": url} | dict(more or {})
