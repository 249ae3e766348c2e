"""What a migrated database is, as pg_dump says: sql/schema.sql.

python3 dev.py schema             remakes the file
python3 dev.py schema --check     exits 1 where it is not what the migrations and functions make
"""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from pgqueue.database.migrations import migrate
from pgqueue.embedded.binaries import bindir
from pgqueue.embedded.server import EmbeddedServer
from tests.support.places import ROOT

FILE = ROOT / "sql" / "schema.sql"

HEAD = """\
-- What a migrated database is: sql/migrations/ and sql/functions/ together, as pg_dump of Postgres
-- 18 says. For reading, and for comparing two releases; no program applies this file. Reasons stand
-- in the files that it is made from.
--
-- Remake it after a change there: python3 dev.py schema

"""

NOISE = re.compile(
    r"^(?:--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(?:un)?restrict.*)\n", re.MULTILINE
)
"""Comments, settings and marks of pg_dump itself: they name versions and sessions."""

BODY = re.compile(r"(AS (\$\w*\$).*?\2)", re.DOTALL)
"""A function's body."""


def dump(url: str, binaries: Path) -> str:
    """The schema of this database, without what differs from one server or run to another."""
    command = [str(binaries / "pg_dump"), "--schema-only", "--no-owner", "--dbname", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parts = BODY.split(done.stdout)
    # Every third part is a body, and behind it the mark of its quotes.
    outside = [_plain(part) for part in parts[::3]]
    bodies = [*parts[1::3], ""]
    text = "".join(part + body for part, body in zip(outside, bodies, strict=True))
    return HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _plain(text: str) -> str:
    return NOISE.sub("", text).replace("public.", "")


def made() -> str:
    """The schema of a new database, on the embedded server."""
    with EmbeddedServer({"fsync": "off"}) as server:
        asyncio.run(migrate(server.url()))
        return dump(server.url(), bindir())


def main(given: list[str]) -> int:
    text = made()
    if FILE.exists() and FILE.read_text() == text:
        print("sql/schema.sql is what the migrations and functions make")
        return 0
    if "--check" in given:
        print("sql/schema.sql is not what the migrations and functions make: python3 dev.py schema")
        return 1
    FILE.write_text(text)
    print("wrote sql/schema.sql")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
