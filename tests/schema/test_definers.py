"""Functions that run with their owner's rights run nothing that another role made, even where it
may create things beside ours.

Of two operators or functions Postgres takes the one whose types fit better, whatever comes first on
the search path. So a role that may create in our schema makes everything that could fit better,
before and after the migrations; then each function is called.
"""

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgqueue.database.migrations import migrate
from tests.conftest import Server
from tests.schema.test_doors import a_login, session
from tests.support.factories import a_job, a_type, sql
from tests.support.logins import ROLES
from tests.support.places import ROOT

pytestmark = [pytest.mark.postgres(15, 18), pytest.mark.timeout(180)]

Connection = AsyncConnection[Any]

TYPES = (
    *(
        "text",
        "varchar",
        "name",
        "uuid",
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "real",
        "float8",
        "boolean",
        "bytea",
        "jsonb",
    ),
    *(
        "json",
        "timestamptz",
        "timestamp",
        "interval",
        "oid",
        "regclass",
        "text[]",
        "integer[]",
        "uuid[]",
        "bytea[]",
    ),
)
OPERATORS = (
    "||",
    "->",
    "->>",
    "#>>",
    "+",
    "-",
    "*",
    "/",
    "%",
    "<<",
    "|",
    "&",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "?",
    "?|",
    "~",
    "~~",
)
FEW = ("text", "name", "jsonb", "integer", "interval", "oid")

GRAMMAR = {
    *(
        "coalesce",
        "extract",
        "overlay",
        "substring",
        "position",
        "greatest",
        "least",
        "row",
        "values",
        "in",
        "any",
        "all",
        "exists",
    ),
    *(
        "array",
        "and",
        "or",
        "not",
        "as",
        "over",
        "filter",
        "select",
        "from",
        "on",
        "conflict",
        "using",
        "when",
        "case",
        "then",
        "else",
    ),
    *(
        "loop",
        "if",
        "return",
        "next",
        "insert",
        "into",
        "limit",
        "where",
        "by",
        "distinct",
        "execute",
        "set",
        "lateral",
        "with",
    ),
}
"""Words before a bracket that call nothing which could be another role's."""


def calls(source: str) -> set[str]:
    """The functions that a body calls with arguments, and without saying in which schema they
    are."""
    source = re.sub(r"\$re\$.*?\$re\$", "'x'", source)
    bare = re.sub(
        r"--[^\n]*|'(?:[^']|'')*'", lambda found: "" if found[0].startswith("-") else "'x'", source
    )
    bare = re.sub(r"\b(AS|INTO)\s+\w+\s*\(", " (", bare, flags=re.IGNORECASE)
    found = re.findall(r"(?<![\w.])(\w+)\((?!\s*[)*])", bare)
    return {name.lower() for name in found} - GRAMMAR


async def sheltered(
    connection: Connection, statement: LiteralString, given: Any = None
) -> list[dict[str, Any]]:
    """A statement of the test's own, which must take no trap."""
    await connection.execute("SET search_path = pg_catalog")
    found = await sql(connection, statement, given)
    await connection.execute("RESET search_path")
    return found


async def trap(squatter: Connection, owner: Connection) -> None:
    """Makes everything that fits better than what is the server's. What takes it fails: there is no
    value of its type."""
    await sql(squatter, "CREATE TYPE trap AS ENUM ()")
    known = {
        (row["oprname"], row["l"], row["r"])
        for row in await sheltered(
            owner,
            """SELECT oprname::text, format_type(oprleft, NULL) AS l,
                      format_type(oprright, NULL) AS r
                 FROM pg_operator
                WHERE oprnamespace = 'pg_catalog'::regnamespace""",
        )
    }
    spelt = {
        kind: (await sheltered(owner, "SELECT format_type(%s::regtype, NULL) AS name", [kind]))[0][
            "name"
        ]
        for kind in TYPES
    }
    statements = []
    for left in TYPES:
        for right in TYPES:
            statements.append(
                f"CREATE FUNCTION trap({left}, {right}) RETURNS trap LANGUAGE plpgsql AS 'BEGIN "
                "RAISE ''taken''; END'"
            )
            for operator in OPERATORS:
                if (operator, spelt[left], spelt[right]) not in known:
                    statements.append(
                        f"CREATE OPERATOR {operator} (FUNCTION = trap, LEFTARG = {left}, "
                        f"RIGHTARG = {right})"
                    )
    mine = "\n".join(
        path.read_text()
        for room in ("migrations/*.sql", "functions/*.sql", "roles.sql")
        for path in ROOT.glob(f"sql/{room}")
    )
    mine += "\n".join(
        path.read_text()
        for path in [
            ROOT / "pgqueue/database/migrations.py",
            ROOT / "service/pgqueue_service/notifications/legacy_import.py",
        ]
    )
    server = await sheltered(
        owner,
        (
            "SELECT DISTINCT proname::text AS name FROM pg_proc WHERE pronamespace = "
            "'pg_catalog'::regnamespace"
        ),
    )
    called = set(re.findall(r"(?<!\w)(\w+)\(", mine)) & {row["name"] for row in server} - {
        "substring",
        "position",
        "overlay",
    }
    shapes = [(kind,) for kind in TYPES] + [(one, other) for one in FEW for other in FEW]
    statements += [
        (
            f"CREATE FUNCTION public.{name}({', '.join(shape)}) RETURNS trap LANGUAGE plpgsql AS "
            "'BEGIN RAISE ''taken''; END'"
        )
        for name in sorted(called)
        for shape in shapes
    ]
    statements += [
        f"CREATE DOMAIN public.{kind} AS pg_catalog.bool"
        for kind in ("text", "uuid", "jsonb", "regclass", "bytea")
    ]
    async with squatter.transaction():
        await squatter.execute("SET LOCAL search_path = pg_catalog, public")
        for first in range(0, len(statements), 500):
            block = ";".join(f"EXECUTE $x$SET LOCAL search_path = public$x$; EXECUTE $x${one}$x$"
                             for one in statements[first : first + 500])  # fmt: skip
            await squatter.execute(
                f"DO $do$ BEGIN {block}; END $do$".replace(
                    "RETURNS trap", "RETURNS public.trap"
                ).encode()
            )


async def trap_ours(squatter: Connection, owner: Connection) -> None:
    """Functions with the names of ours that fit better: fewer arguments, or text for what is
    written as a literal."""
    ours = await sheltered(
        owner,
        """SELECT p.proname AS name, p.pronargdefaults AS optional,
                  array(SELECT format_type(a.t, NULL)
                   FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (t, n)
                         ORDER BY n) AS types
             FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
               AND p.proowner = 'pgqueue_migrator'::regrole
              AND p.prorettype <> 'trigger'::regtype""",
    )
    for function in ours:
        kinds: list[str] = function["types"]
        shapes = {
            tuple(kinds[: len(kinds) - fewer]) for fewer in range(1, function["optional"] + 1)
        }
        shapes |= {
            (*kinds[:at], other, *kinds[at + 1 :])
            for at in range(len(kinds))
            for other in ("text", "varchar", "jsonb", "bytea")
        }
        for shape in shapes - {tuple(kinds)}:
            await squatter.execute(
                f"""CREATE FUNCTION public.{function["name"]}({", ".join(shape)})
                    RETURNS trap LANGUAGE plpgsql
                    AS 'BEGIN RAISE ''taken''; END'""".encode()
            )


@pytest.fixture
async def owner(empty_database_url: str) -> AsyncIterator[Connection]:
    async with session(empty_database_url) as connection:
        yield connection


@pytest.fixture
async def squatter(
    pg_server: Server, empty_database_url: str, owner: Connection
) -> AsyncIterator[Connection]:
    """A producer that may create in our schema, and has."""
    async with session(a_login(pg_server, empty_database_url, "only_squatter")) as connection:
        await sql(owner, "GRANT CREATE ON SCHEMA public TO only_squatter")
        await trap(connection, owner)
        await migrate(empty_database_url)
        await sql(owner, "SET pgqueue.others_may_create = on")
        await owner.execute(ROLES.encode())
        await sql(owner, "GRANT pgqueue_producer TO only_squatter")
        await trap_ours(connection, owner)
        for name in (
            "job_logs",
            "job_types",
            "pgqueue_answer",
            "pgqueue_bulk_answer",
            "job_tombstones",
            "text",
        ):
            await connection.execute(f"CREATE TEMPORARY TABLE {name} (x public.trap)".encode())
        yield connection
    await sql(owner, "DROP OWNED BY only_squatter CASCADE")


async def test_nothing_that_another_role_made_is_taken(
    owner: Connection, squatter: Connection
) -> None:
    await a_type(owner, job_type="free")
    await a_type(owner, job_type="kept", limit_count=2, limit_window="1 day", user_from="userId")
    await a_type(owner, job_type="closed", admin=True)
    (buried,) = await ours(owner, "pgqueue_id_hash", job_id="buried")
    await sql(
        owner,
        "INSERT INTO job_tombstones VALUES (%s, %s, 'completed', now())",
        [buried["pgqueue_id_hash"], b""],
    )
    mine = {"payload": {"userId": "u"}, "queue": "q", "priority": 3}
    for kind, name, status in [("free", "a", "enqueued"), ("free", None, "enqueued"),
                               ("free", "a", "enqueued"), ("kept", "k1", "enqueued"),
                               ("kept", None, "enqueued"), ("kept", "k3", None)]:  # fmt: skip
        (ticket,) = await ours(squatter, "enqueue_job", job_type=kind, job_id=name, **mine)
        assert ticket["status"] == status
    (answer,) = await ours(
        squatter, "pgqueue_try_enqueue", job_type="free", job_id="buried", payload={}
    )
    assert answer["refusal"] == "duplicate_payload"
    for wrong in (
        {"job_type": "free", "job_id": "a", "payload": {"other": 1}},
        {"job_type": "nosuch", "payload": {}},
        {"job_type": "kept", "payload": {}},
        {"job_type": "kept", "payload": {"userId": "u"}, "user_id": "v"},
        {"job_type": "closed", "payload": {}},
    ):
        await refused(squatter, "enqueue_job", **wrong)

    for function in ("pgqueue_enqueue_many", "pgqueue_enqueue_group"):
        for types in (["free"], ["free", "kept"]):
            for turn, names in enumerate(
                (["n1", "n2", "n3"], ["n1", "buried", "n1"], ["m1", "m2"])
            ):
                jobs = [
                    {"job_type": kind,
                     "job_id": name if name == "buried" else f"{name} {function} {types}",
                     "filled": {"more": 1},
                     "payload": {"userId": f"{function} {types}"}, "delay": 1, "priority": 4,
                     "queue": "q", "max_attempts": 3}
                    for kind in types for name in names
                ]  # fmt: skip
                answers = await ours(squatter, function, jobs=jobs)
                assert any(row["refusal"] for row in answers) or turn != 1, (
                    "the id of the tombstone is refused"
                )
        for wrong in (
            {"job_type": "nosuch", "payload": {}},
            {"job_type": "closed", "payload": {}},
            {"job_type": "kept", "payload": {}},
            {"job_type": "kept", "payload": {"userId": "u"}, "user_id": "v"},
        ):
            await refused(squatter, function, jobs=[{"job_id": "x", **wrong}])

    await sql(owner, """INSERT INTO job_workers (id, kind, host, pid, release, queues, asleep)
                        VALUES ('w', 'worker', 'h', 1, '1', '{"q": 1}', true)""")  # fmt: skip
    assert (await ours(squatter, "ring_doorbell", queues=["q"], jobs=1))[0]["ring_doorbell"] == 1

    # What operators call and what triggers do.
    dead = await a_job(owner, job_id="dead", status="dlq", job_type="free")
    assert (await ours(owner, "replay_job", job_id="dead", payload={}))[0]["status"] == "enqueued"
    assert [(await ours(owner, "cancel_job", job_id="dead"))[0]["changed"] for _ in range(2)] == [
        True,
        False,
    ]
    assert (await ours(owner, "replay_jobs", ids=[dead["id"]], spacing=timedelta(seconds=1)))[0][
        "replay_jobs"
    ] == 1
    for function in ("delete_dead_job", "replay_job"):
        assert not (await ours(owner, function, job_id="dead"))[0]["changed"]
    for paused in (True, False):
        await ours(owner, "pause_queue", queue="q", paused=paused)
    await sql(owner, "UPDATE job_types SET admin = false WHERE admin")
    assert await sql(owner, "SELECT FROM job_types WHERE admin") == []


@pytest.mark.parametrize("cast", ["text AS uuid", "uuid AS text", "pgqueue_answer AS text"])
async def test_a_cast_between_types_that_are_not_its_own_cannot_be_made(
    pg_server: Server, connection: Connection, database_url: str, cast: LiteralString
) -> None:
    async with session(
        a_login(pg_server, database_url, "only_producer", "pgqueue_producer")
    ) as squatter:
        await sql(connection, "GRANT CREATE ON SCHEMA public TO only_producer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await sql(squatter, f"CREATE CAST ({cast}) WITH INOUT AS IMPLICIT")


async def test_each_says_whose_functions_it_calls(connection: Connection) -> None:
    """The server's own by pg_catalog, so that it does not hang on the types of the arguments. Those
    that they call too."""
    functions = await sql(
        connection,
        """SELECT p.proname::text AS name, p.prosrc AS body, p.prosecdef AS lends FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace""",
    )
    bodies = {one["name"]: one["body"] for one in functions}
    lending: set[str] = set()
    found = {one["name"] for one in functions if one["lends"]}
    while found:
        lending |= found
        found = {
            name for name in bodies for caller in found if re.search(rf"\b{name}\(", bodies[caller])
        } - lending
    assert {
        "pgqueue_admit",
        "pgqueue_known_job",
        "pgqueue_rows",
        "pgqueue_fill_defaults",
    } <= lending
    for name in lending:
        assert calls(bodies[name]) <= set(bodies), name


async def ours(connection: Connection, function: str, **given: Any) -> list[dict[str, Any]]:
    """Calls it by its whole signature: what the caller itself writes must take no trap."""
    (found,) = await sheltered(
        connection,
        """SELECT p.proargnames[:p.pronargs] AS names,
             string_to_array(pg_get_function_identity_arguments(p.oid), ', ') AS shape
             FROM pg_proc p WHERE p.proname = %s
               AND p.proowner = to_regrole('pgqueue_migrator')::oid""",
        [function],
    )
    kinds = [
        one.removeprefix(name).strip()
        for name, one in zip(found["names"], found["shape"], strict=True)
    ]
    written = ", ".join(
        f"%({name})s::{kind}" for name, kind in zip(found["names"], kinds, strict=True)
    )
    values = {
        name: json.dumps(given[name]) if kind == "jsonb" and name in given else given.get(name)
        for name, kind in zip(found["names"], kinds, strict=True)
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"SELECT * FROM public.{function}({written})".encode(), values)
        return await cursor.fetchall()


async def refused(connection: Connection, function: str, **given: Any) -> None:
    with pytest.raises(
        (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.InsufficientPrivilege)
    ):
        await ours(connection, function, **given)
