"""The files of sql/: one function in each of sql/functions/, closed, and named by what it is."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgqueue.database.migrations import functions, migrate
from tests.guards import code
from tests.support.places import ROOT

FILES = sorted(ROOT.glob("sql/functions/*.sql"))
PUBLIC = {
    "cancel_job",
    "dead_jobs",
    "delete_dead_job",
    "enqueue_job",
    "job_uuid_at",
    "pause_queue",
    "replay_job",
    "replay_jobs",
    "ring_doorbell",
}
"""What people and other programs call."""

ARGUMENTS = re.compile(r"\(((?:[^()]|\([^()]*\))*)\)")


def types_of(arguments: str) -> list[str]:
    """Of "job_id text DEFAULT NULL, ids uuid[]": text, uuid[]."""
    types = []
    for argument in re.split(r",\s*", arguments.strip()):
        words = re.sub(r"\s+DEFAULT\s.*", "", argument).split()
        types += words[1:] or words
    return types


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_makes_one_function_of_its_name_and_takes_it_from_public(file: Path) -> None:
    text = code(file.read_text())
    made = re.findall(rf"CREATE OR REPLACE FUNCTION (\w+){ARGUMENTS.pattern}", text)
    closed = re.findall(rf"REVOKE ALL ON FUNCTION (\w+){ARGUMENTS.pattern} FROM PUBLIC;", text)
    assert [name for name, _ in made] == [name for name, _ in closed] == [file.stem]
    assert types_of(made[0][1]) == types_of(closed[0][1])
    outside = re.sub(r"(\$\w*\$).*?\1", "", text, flags=re.DOTALL)
    assert outside.count(";") == 2, "nothing but these two statements"


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("sql/**/*.sql")), ids=lambda file: f"{file.parent.name}/{file.name}"
)
def test_lines_have_at_most_100_columns(file: Path) -> None:
    """schema.sql is written by pg_dump."""
    lines = file.read_text().splitlines()
    assert file.name == "schema.sql" or [line for line in lines if len(line) > 100] == []


def test_what_is_not_public_is_called_pgqueue() -> None:
    names = {file.stem for file in FILES}
    assert names - {name for name in names if name.startswith("pgqueue_")} == PUBLIC


@pytest.mark.postgres(15, 18)
async def test_each_body_is_one_that_postgres_understands(empty_database_url: str) -> None:
    """`migrate` applies them without checking, for one may call another that comes later."""
    await migrate(empty_database_url)
    async with await psycopg.AsyncConnection.connect(empty_database_url) as owner:
        await owner.execute("SET search_path = public, pg_temp")
        for function in functions():
            await owner.execute(function.statements)


@pytest.mark.postgres(15, 18)
async def test_a_migrated_database_has_no_other_functions(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    async with await psycopg.AsyncConnection.connect(empty_database_url) as owner:
        cursor: psycopg.AsyncCursor[Any] = await owner.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
        made = sorted(name for (name,) in await cursor.fetchall())
    of_tables = re.findall(
        r"CREATE FUNCTION (\w+)", (ROOT / "sql/migrations/0001_tables.sql").read_text()
    )
    assert made == sorted([*of_tables, *(file.stem for file in FILES)])
