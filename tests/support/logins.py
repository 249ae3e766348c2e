"""Who the programs are in the database: in tests, as in production, they log in as members of the
groups of sql/roles.sql.

The API and the command line run as `queue_api`, workers as `queue_worker`, whatever else takes
`settings` as `queue_program`, who is both. Only what sets the scene (`database_url`, `connection`)
is the owner, and so are migrations.
"""

from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ROLES = (files("pgqueue.sql") / "roles.sql").read_text()

GROUPS = {
    "queue_api": ("pgqueue_operator",),
    "queue_worker": ("pgqueue_worker",),
    "queue_program": ("pgqueue_operator", "pgqueue_worker"),
}
"""Login -> its groups. Each server of the tests has them, all with its superuser's password."""

OWNER = "postgres"

OWNED = "test_"
"""What databases are called that were made by roles.sql for these logins."""

_BY_COMMAND = {"migrate": None, "dev": None, "prune": "queue_worker", "worker": "queue_worker"}


def make_logins(*, autocommit: bool, **where: Any) -> None:
    """Rights in a template database, and the logins on its server."""
    with psycopg.connect(**where, autocommit=True) as connection:
        connection.execute(ROLES.encode())
        for login, groups in GROUPS.items():
            name, password = sql.Identifier(login), sql.Literal(where["password"])
            if (
                connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [login]).fetchone()
                is None
            ):
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password)
                )
            connection.execute(
                sql.SQL("GRANT {} TO {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, groups)), name
                )
            )


def url_of(login: str, url: Any) -> str:
    """The URL of a test's database for that login; any other URL as it is."""
    parts = urlsplit(str(url))
    if not parts.path.startswith(f"/{OWNED}") or parts.username not in (OWNER, *GROUPS):
        return str(url)
    return str(url).replace(f"//{parts.username}:", f"//{login}:", 1)


def url_for(command: str, url: Any) -> str:
    """The same for whoever runs that command of pgqueue."""
    login = _BY_COMMAND.get(command, "queue_api")
    return str(url) if login is None else url_of(login, url)
