"""Connections as the queue needs them, with any settings of the database or the role: every
connection is opened here or in pgqueue.database.pool, and gets what it depends on."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper
from psycopg.rows import tuple_row

from pgqueue.blocking import finished
from pgqueue.database.statements import load
from pgqueue.errors import SchemaError

WORDS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "exit_on_error": "off",
    "check_function_bodies": "on",
    "default_table_access_method": "heap",
    # In another isolation than READ COMMITTED a limit is not exact, and a row that was changed
    # meanwhile is an error.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""How texts are read and written, what a transaction is, and no limits but our own. Not the time
zone: a handler's own statements run on such connections too, and ours do not depend on it."""

DEMANDED = {
    name: WORDS[name] for name in ("default_transaction_read_only", "array_nulls", "exit_on_error")
}
"""What cannot be done without behind a pooler either. All else is read and written so that no
setting matters."""

OURS = {"TimeZone": "UTC"}
"""For connections that carry only our statements: a day of an interval has 24 hours there."""


_SETTING = load("set_session")


class SecondsDumper(Dumper):
    """A timedelta as seconds, without days: a day of an interval may have 23 or 25 hours, and a
    timedelta's has 24."""

    oid = psycopg.adapters.types["interval"].oid

    def dump(self, obj: timedelta) -> Buffer:
        return in_seconds(obj).encode()


def in_seconds(span: timedelta) -> str:
    """As Postgres reads it in every IntervalStyle."""
    micros = span // timedelta(microseconds=1)
    sign, micros = ("-" if micros < 0 else ""), abs(micros)
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d} s"


def adapt(context: AdaptContext) -> None:
    """A connection or a cursor that writes timedeltas so."""
    adapters = context.adapters
    if adapters is not None:
        adapters.register_dumper(timedelta, SecondsDumper)


def _values(
    connection: Connection[Any] | AsyncConnection[Any],
    more: Mapping[str, str],
    *,
    local: bool = False,
) -> dict[str, object]:
    values = WORDS | dict(more)
    if connection.info.server_version >= 170000:
        values["transaction_timeout"] = "0"
    return {"names": list(values), "values": list(values.values()), "local": local}


async def settle(
    connection: AsyncConnection[Any], pooled: bool, more: Mapping[str, str] = OURS
) -> None:
    """Sets what the queue depends on, and `more`. Behind a pooler nothing can be set on a session:
    raises SchemaError where something would have to be."""
    adapt(connection)
    if pooled:
        await _demand(_asking(connection))
    else:
        await connection.execute(_SETTING, _values(connection, more))


Ask = Callable[[str, Sequence[Any]], Awaitable[tuple[Any, ...] | None]]
"""The first row of a query, by a connection that awaits or by one that blocks."""


def _asking(connection: AsyncConnection[Any]) -> Ask:
    async def ask(query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        async with AsyncCursor(connection, row_factory=tuple_row) as cursor:
            return await (await cursor.execute(query, parameters)).fetchone()

    return ask


def _asking_now(connection: Connection[Any]) -> Ask:
    async def ask(query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        with Cursor(connection, row_factory=tuple_row) as cursor:
            return cursor.execute(query, parameters).fetchone()

    return ask


async def _demand(ask: Ask) -> None:
    found = await ask(
        """SELECT s.name FROM unnest(%s::text[], %s::text[]) AS s(name, wanted)
            WHERE current_setting(s.name) <> s.wanted LIMIT 1""",
        [list(DEMANDED), list(DEMANDED.values())],
    )
    if found is not None:
        given, where = await _set_where(ask, found[0])
        raise SchemaError(
            f"{found[0]} is {given}, set {where}. It must be {DEMANDED[found[0]]}, which no "
            "process can set through a pooler"
        )


async def set_where(connection: AsyncConnection[Any], name: str) -> tuple[str, str]:
    """What a setting is, and where it is set, with what undoes that."""
    return await _set_where(_asking(connection), name)


async def _set_where(ask: Ask, name: str) -> tuple[str, str]:
    query = "SELECT setting, source FROM pg_settings WHERE name = %s"
    given, source = await ask(query, [name]) or ("", "")
    where = {
        "database": f"on the database: ALTER DATABASE ... RESET {name}",
        "user": f"on the role: ALTER ROLE ... RESET {name}",
        "database user": (
            f"on the role in this database: ALTER ROLE ... IN DATABASE ... RESET {name}"
        ),
        "client": "by DATABASE_URL",
    }
    return given, where.get(source, "in the configuration of the server")


def settle_now(connection: Connection[Any], pooled: bool, more: Mapping[str, str] = OURS) -> None:
    """The same for a connection that blocks."""
    adapt(connection)
    if not pooled:
        connection.execute(_SETTING, _values(connection, more))


def demand_now(connection: Connection[Any]) -> None:
    """SchemaError where a setting would have to be made behind a pooler."""
    finished(_demand(_asking_now(connection)))


async def settle_transaction(connection: AsyncConnection[Any]) -> None:
    """The same until the end of the transaction, behind a pooler too."""
    adapt(connection)
    await connection.execute(_SETTING, _values(connection, OURS, local=True))


def demand_utf8(connection: AsyncConnection[Any]) -> None:
    """SchemaError for a database in which not every text can be stored."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaError(
            f"the database is in the encoding {encoding}, and pgqueue needs UTF-8: make another "
            "one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and move there what this "
            "one holds"
        )


async def connected(conninfo: str, pooled: bool = False, **options: Any) -> AsyncConnection[Any]:
    """A connection in autocommit for a few statements of ours."""
    connection: AsyncConnection[Any] = await AsyncConnection.connect(
        conninfo, autocommit=True, prepare_threshold=None, client_encoding="UTF8", **options
    )
    try:
        await settle(connection, pooled)
    except BaseException:
        await connection.close()
        raise
    return connection
