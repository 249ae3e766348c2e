"""sql/schema.sql is what the migrations and functions make of an empty database."""

import re
from pathlib import Path

import psycopg
import pytest

from pgqueue.database.migrations import migrate
from tests.schema.dump import FILE, dump

pytestmark = pytest.mark.postgres(15, 18)

OWN = re.compile(r"    id uuid DEFAULT \S.* NOT NULL,\n")
"""Where Postgres 18 has uuidv7(), an older one has an expression that makes the same."""


def plain(text: str, major: int) -> str:
    return OWN.sub("    id\n", text, count=1) if major < 18 else text


async def test_it_is_what_a_migrated_database_is(
    empty_database_url: str, postgres_major: int, installed: dict[int, Path]
) -> None:
    """Where this fails after a change of sql/: python3 dev.py schema."""
    await migrate(empty_database_url)
    found = dump(empty_database_url, installed[postgres_major])
    assert plain(found, postgres_major) == plain(FILE.read_text(), postgres_major)


async def test_functions_that_replace_older_ones_make_it_too(
    empty_database_url: str, postgres_major: int, installed: dict[int, Path]
) -> None:
    await migrate(empty_database_url)
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as owner:
        await owner.execute(
            """CREATE OR REPLACE FUNCTION cancel_job(job_id text) RETURNS job_change
               LANGUAGE sql STABLE SET work_mem = '8MB' AS 'SELECT NULL::job_change';
               UPDATE job_functions SET checksum = 'older'"""
        )
    before = dump(empty_database_url, installed[postgres_major])
    await migrate(empty_database_url)
    after = dump(empty_database_url, installed[postgres_major])
    assert before != after
    assert plain(after, postgres_major) == plain(FILE.read_text(), postgres_major)
