"""The versioned schema: numbered migrations, forward only, each applied once; and functions, one a
file, applied again whenever their file has changed. Both under one lock, in one transaction."""

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import msgspec
import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import class_row, tuple_row

from pgqueue.database.session import demand_utf8, set_where, settle_transaction
from pgqueue.database.worker_connection import load
from pgqueue.errors import SchemaError
from pgqueue.version import __version__

RELEASE = 1
"""The number of this release's contract with the schema. A schema may name the lowest that it still
works for (min_release)."""

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_MIN_RELEASE = re.compile(r"^-- min_release: (\d+)$", re.MULTILINE)

LOCK = 0x706771756575
"""The advisory lock under which a process migrates."""

LEDGER = """
CREATE TABLE job_migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    min_release integer NOT NULL DEFAULT 1,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON job_migrations FROM PUBLIC"""


class OldTable(Protocol):
    """A table called job_logs that another program made, and how its rows become jobs."""

    plan: tuple[str, str]
    """What `rename` and `copy` do, in the imperative."""

    async def rename(self, connection: AsyncConnection[Any]) -> str | None:
        """Moves the table out of the way and says so; returns None when there is none. Raises
        SchemaError."""

    async def copy(self, connection: AsyncConnection[Any]) -> str:
        """Copies rows into the job_logs that was just made, and says what it did."""


class Migration(msgspec.Struct, frozen=True):
    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        return _checksum(self.statements)

    @property
    def label(self) -> str:
        """As it is named to people: 0001_tables."""
        return f"{self.version:04d}_{self.name}"

    @property
    def min_release(self) -> int:
        """From a line `-- min_release: N`; 1 where there is none."""
        found = _MIN_RELEASE.search(self.statements)
        return int(found[1]) if found else 1


class Function(msgspec.Struct, frozen=True):
    """A file of sql/functions/: it makes one function, and takes it from PUBLIC."""

    name: str
    statements: str
    checksum: str

    @property
    def label(self) -> str:
        """As it is named to people: functions/enqueue_job."""
        return f"functions/{self.name}"


Step = Migration | Function


class Applied(msgspec.Struct, frozen=True):
    version: int
    name: str
    checksum: str
    min_release: int
    applied_at: datetime


def migrations() -> list[Migration]:
    """The migrations of this release, in order."""
    found = []
    for file in files("pgqueue.sql.migrations").iterdir():
        if match := _FILE.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda one: one.version)


@cache
def functions() -> list[Function]:
    """The functions of this release, by name."""
    found = []
    for file in files("pgqueue.sql.functions").iterdir():
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            found.append(Function(file.name.removesuffix(".sql"), text, _checksum(text)))
    return sorted(found, key=lambda one: one.name)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def applied(connection: AsyncConnection[Any]) -> list[Applied]:
    """The migrations that the database has; empty when it has never been migrated."""
    if not await exists(connection, "job_migrations"):
        return []
    async with connection.cursor(row_factory=class_row(Applied)) as cursor:
        await cursor.execute(
            (
                "SELECT version, name, checksum, min_release, applied_at FROM job_migrations ORDER "
                "BY version"
            ),
            binary=True,
        )
        return await cursor.fetchall()


async def pending(connection: AsyncConnection[Any], to: int | None = None) -> list[Step]:
    """The migrations up to version `to` that are still to be applied, then the functions that
    differ. SchemaError when the database holds something else under these names, or no longer works
    for this release."""
    steps: list[Step] = [*await _pending_migrations(connection, to)]
    newest = migrations()[-1].version
    if to is None or to >= newest:
        # A function may use every table of this release.
        steps += await changed_functions(connection)
    return steps


async def changed_functions(connection: AsyncConnection[Any]) -> list[Function]:
    """The functions of this release that the database has in another version or not at all. What a
    later release has applied is not listed: it works for this one too."""
    had: dict[str, tuple[str, str]] = {}
    if await applied(connection) and await exists(connection, "job_functions"):
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute("SELECT name, checksum, release FROM job_functions")
            had = {name: (checksum, release) for name, checksum, release in await cursor.fetchall()}
    return [
        one
        for one in functions()
        if one.name not in had
        or (had[one.name][0] != one.checksum and _numbers(had[one.name][1]) <= _numbers())
    ]


_NUMBER = re.compile(r"\d+")


def _numbers(release: str = __version__) -> list[int]:
    """A release as numbers that can be compared: 1.10 is later than 1.9."""
    return [int(number) for number in _NUMBER.findall(release)[:3]]


async def _pending_migrations(connection: AsyncConnection[Any], to: int | None) -> list[Migration]:
    had = await applied(connection)
    if not had:
        await _refuse_strangers(connection)
    _refuse_newer(had)
    done = {one.version: one for one in had}
    for one in migrations():
        if one.version in done and done[one.version].checksum != one.checksum:
            raise SchemaError(
                f"migration {one.version:04d}_{one.name} is not the one that this database had: "
                "it was changed after it was applied; use the release that applied it, or a "
                "later one"
            )
    return [
        one for one in migrations() if one.version not in done and (to is None or one.version <= to)
    ]


async def migrate(
    conninfo: str,
    *,
    to: int | None = None,
    adopt: OldTable | None = None,
    lock_timeout: str = "10s",
    told: Callable[[str], None] = lambda _: None,
) -> list[Step]:
    """Bring the schema up to version `to` (the newest when None) and return what was applied.

    Safe to run twice, and from two machines at once. With `adopt`, the table of another program is
    taken over first. `told` is called with each step before it is taken. Raises SchemaError when
    that is not possible; nothing was changed then."""
    async with await AsyncConnection.connect(
        conninfo, autocommit=True, prepare_threshold=None, client_encoding="UTF8"
    ) as connection:
        demand_utf8(connection)
        newest = max(one.version for one in migrations())
        if to is not None and not 1 <= to <= newest:
            raise SchemaError(f"there is no version {to}: this release has 1 to {newest}")
        # A process that waited for the lock has to see what was done in that time, with any default
        # isolation of the database.
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await connection.set_read_only(False)
        try:
            async with connection.transaction():
                await _settle(connection, lock_timeout)
                return await _apply(connection, to, adopt, told)
        except psycopg.errors.LockNotAvailable:
            raise SchemaError(
                f"a table of pgqueue is in use; nothing was changed (waited {lock_timeout}). Try "
                "again, or see "
                "sql/monitoring/locks.sql for who holds it"
            ) from None


async def _apply(
    connection: AsyncConnection[Any],
    to: int | None,
    adopt: OldTable | None,
    told: Callable[[str], None],
) -> list[Step]:
    if ahead := [one for one in await applied(connection) if to is not None and one.version > to]:
        raise SchemaError(
            f"the database is at version {ahead[-1].version} already; migrations only go forward"
        )
    renamed = await adopt.rename(connection) if adopt else None
    if renamed:
        told(renamed)
    steps = await pending(connection, to)
    if not await applied(connection):
        await connection.execute(LEDGER)
    for one in steps:
        if isinstance(one, Migration):
            told(f"applying {one.label}")
            await _apply_migration(connection, one)
    await _apply_functions(connection, [one for one in steps if isinstance(one, Function)], told)
    if adopt and renamed:
        told(await adopt.copy(connection))
    return steps


async def _apply_migration(connection: AsyncConnection[Any], one: Migration) -> None:
    await connection.execute(one.statements)
    await connection.execute(
        """INSERT INTO job_migrations (version, name, checksum, min_release)
           VALUES (%s, %s, %s, %s)""",
        [one.version, one.name, one.checksum, one.min_release],
    )


async def _apply_functions(
    connection: AsyncConnection[Any], changed: list[Function], told: Callable[[str], None]
) -> None:
    if not changed:
        return
    told(f"applying functions: {', '.join(one.name for one in changed)}")
    # One may call another that comes later in the alphabet. Tests apply all of them once more, with
    # their bodies checked.
    await connection.execute("SELECT set_config('check_function_bodies', 'off', true)")
    for one in changed:
        try:
            await connection.execute(one.statements)
        except psycopg.errors.InvalidFunctionDefinition as error:
            raise SchemaError(
                f"the function {one.name} of the database has another result or other parameters, "
                f"and no migration has dropped it ({error.diag.message_primary}); nothing was "
                "changed"
            ) from None
    await _refuse_overloads(connection, [one.name for one in changed])
    await connection.execute(
        """INSERT INTO job_functions AS f (name, checksum, release)
           SELECT n.name, n.checksum, %s FROM unnest(%s::text[], %s::text[]) AS n(name, checksum)
           ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum,
                                            release = excluded.release, applied_at = now()""",
        [__version__, [one.name for one in changed], [one.checksum for one in changed]],
    )


async def _refuse_overloads(connection: AsyncConnection[Any], names: list[str]) -> None:
    """A function of ours with other parameters stays next to the new one, and calls become
    ambiguous. Functions of other roles do not count."""
    cursor = await connection.execute(
        """SELECT p.proname FROM pg_proc p JOIN pg_class c ON c.relnamespace = p.pronamespace
            WHERE c.oid = to_regclass('job_functions')::oid AND p.proowner = c.relowner
              AND p.proname::text = ANY (%s::text[])
            GROUP BY p.proname HAVING count(*) > 1 ORDER BY 1""",
        [names],
    )
    if twice := [name for (name,) in await cursor.fetchall()]:
        raise SchemaError(
            f"the database has another {twice[0]} with other parameters, and no migration has "
            "dropped it; nothing was changed"
        )


async def _settle(connection: AsyncConnection[Any], lock_timeout: str) -> None:
    """Set up the transaction of a migration, in one schema: where our tables are, else the first of
    the search path."""
    await settle_transaction(connection)
    await connection.execute("SELECT set_config('lock_timeout', %s, true)", [lock_timeout])
    # Before anything else: a session that had looked for our tables would go on believing that
    # there are none.
    await _lock(connection, lock_timeout)
    cursor = await connection.execute(
        """SELECT coalesce((SELECT c.relnamespace::regnamespace::text FROM pg_class c
                             WHERE c.oid = coalesce(to_regclass('job_migrations'),
                               to_regclass('job_logs'))::oid),
                           pg_catalog.quote_ident(current_schema()::text))"""
    )
    row = await cursor.fetchone()
    if not row or not row[0]:
        raise SchemaError(await _nowhere(connection))
    # Functions that run with their owner's rights keep this search path: without pg_temp at its
    # end, a caller's temporary table called job_logs would come before ours.
    await connection.execute("SELECT set_config('search_path', %s, true)", [f"{row[0]}, pg_temp"])


async def _lock(connection: AsyncConnection[Any], lock_timeout: str) -> None:
    try:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    except psycopg.errors.LockNotAvailable:
        raise SchemaError(
            f"another process is migrating this database; nothing was changed (waited "
            f"{lock_timeout})"
        ) from None


async def others_may_create(connection: AsyncConnection[Any]) -> str | None:
    """A warning when roles that do not own the schema may create things in it; None when none may,
    or before migrate."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(load("list_creators"))
        found = await cursor.fetchall()
    if not found:
        return None
    schema, roles = found[0][0], ", ".join(role for _, role in found)
    return (
        f"others may create in the schema {schema}: {roles}. What they create there can be taken "
        "for the server's own functions "
        "and operators, with the rights of pgqueue's processes: REVOKE CREATE ON SCHEMA "
        f"{schema} FROM {roles}; or give pgqueue "
        "a schema of its own"
    )


async def check_schema(connection: AsyncConnection[Any]) -> None:
    """SchemaError when this process cannot work with the schema: never migrated, behind this
    release, or too far ahead of it."""
    demand_utf8(connection)
    done = await applied(connection)
    if not done:
        raise SchemaError(await _missing(connection))
    _refuse_newer(done)
    missing = [one for one in migrations() if one.version not in {had.version for had in done}]
    if missing:
        raise SchemaError(
            f"the schema is at version {done[-1].version}, this release needs "
            f"{missing[-1].version}: run pgqueue migrate"
        )
    if changed := await changed_functions(connection):
        raise SchemaError(
            f"the database has an older version of {len(changed)} functions, such as "
            f"{changed[0].name}: run pgqueue migrate"
        )


async def _nowhere(connection: AsyncConnection[Any]) -> str:
    path, where = await set_where(connection, "search_path")
    return (
        f"there is no schema of the search path ({path or 'empty'}, set {where}): CREATE SCHEMA "
        "first, or name another one"
    )


async def _missing(connection: AsyncConnection[Any]) -> str:
    """A search path that leads elsewhere is no reason to migrate again."""
    cursor = await connection.execute(
        """SELECT c.relnamespace::regnamespace::text FROM pg_class c
            WHERE c.relname = 'job_migrations' AND c.relkind = 'r' ORDER BY 1 LIMIT 1"""
    )
    found = await cursor.fetchone()
    if found is None:
        return "the database has no schema of pgqueue: run pgqueue migrate"
    path, where = await set_where(connection, "search_path")
    return (
        f"the tables of pgqueue are in the schema {found[0]}, and the search path leads elsewhere "
        f"({path or 'empty'}, set {where}): "
        "add ?schema=... to the database URL, or change the search path; for tables of their "
        "own there, run pgqueue migrate"
    )


def _refuse_newer(done: list[Applied]) -> None:
    needed = max((one.min_release for one in done), default=0)
    if needed > RELEASE:
        raise SchemaError(
            f"the schema needs release {needed} of pgqueue and this is {RELEASE}: update pgqueue"
        )


async def _refuse_strangers(connection: AsyncConnection[Any]) -> None:
    if await exists(connection, "job_migrations"):
        raise SchemaError(
            "there is an empty table job_migrations that pgqueue did not make; nothing was "
            "changed. Rename it"
        )
    if await exists(connection, "job_logs"):
        raise SchemaError(
            "there is a table job_logs that pgqueue did not make; nothing was changed. If an "
            "older service made it: stop that service, then run pgqueue migrate --adopt, which "
            "renames the table and copies the jobs that had ended. Otherwise rename it, or give "
            "pgqueue a schema of its own (?schema= in the database URL)"
        )


async def exists(connection: AsyncConnection[Any], table: str) -> bool:
    """Whether the search path has a table of this name."""
    cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
    row = await cursor.fetchone()
    return bool(row and row[0])
