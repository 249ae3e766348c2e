"""A module of tasks that cannot be imported: every command that needs it says where and why, and
exits 1."""

import os
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from tests.support.commands import process
from tests.support.factories import sql

BROKEN = {
    "an import that fails": ("import nosuchmodule\n", "No module named 'nosuchmodule'", 1),
    "an error in its body": ("x = 1\n\nx / 0\n", "ZeroDivisionError: division by zero", 3),
    "a syntax error": ("\ndef broken(:\n", "SyntaxError: invalid syntax", 2),
    "a name that is not there": (
        "from pgqueue import nosuchname\n",
        "cannot import name 'nosuchname'",
        1,
    ),
    "sys.exit()": (
        "import sys\nsys.exit(0)\n",
        "it ends the program while it is imported: SystemExit: 0",
        2,
    ),
    "an exception that cannot be read": (
        "class Odd(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise Odd\n",
        "Odd: (its text cannot be read)",
        3,
    ),
}


@pytest.mark.parametrize("command", ["worker", "api", "migrate"])
@pytest.mark.parametrize("broken", BROKEN)
async def test_it_is_shown_with_its_line(
    database_url: str, tmp_path: Path, command: str, broken: str
) -> None:
    body, sentence, line = BROKEN[broken]
    (tmp_path / "broken_tasks.py").write_text(body)
    code, _, said = await process(
        command, url=database_url, PGQUEUE_MODULES="broken_tasks", PYTHONPATH=str(tmp_path)
    )
    assert code == 1, said
    assert "task module broken_tasks cannot be imported" in said
    assert sentence in said
    assert "Traceback" in said or broken == "a syntax error"
    assert f'broken_tasks.py", line {line}' in said
    assert "pgqueue/imports.py" not in said


@pytest.mark.parametrize("command", ["worker", "api", "migrate"])
async def test_one_that_is_not_there_is_looked_for_where_the_reader_can_see(
    database_url: str, command: str
) -> None:
    code, _, said = await process(command, url=database_url, PGQUEUE_MODULES="no.such")
    assert code == 1, said
    assert (
        f"it was not found (there is no no); looked in the working directory {os.getcwd()}" in said
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["worker", "api", "migrate"])
async def test_a_wrong_declaration_is_said_with_its_line_and_without_a_traceback(
    database_url: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "wrong_tasks.py").write_text(
        "from pgqueue import task\n\n@task('t', backoff=5)\ndef handler(job): ...\n"
    )
    code, _, said = await process(
        command, url=database_url, PGQUEUE_MODULES="wrong_tasks", PYTHONPATH=str(tmp_path)
    )
    assert code == 1, said
    assert "wrong_tasks.py:3: t: backoff is a Backoff, not 5" in said
    assert "Traceback" not in said


async def test_migrate_applies_the_schema_all_the_same(
    database_url: str, connection: AsyncConnection[object], tmp_path: Path
) -> None:
    (tmp_path / "broken_tasks.py").write_text("1 / 0")
    code, out, said = await process(
        "migrate", url=database_url, PGQUEUE_MODULES="broken_tasks", PYTHONPATH=str(tmp_path)
    )
    assert (code, out) == (1, "the schema is up to date\n")
    assert "the schema is up to date, but job types are not published" in said
    assert await sql(connection, "SELECT 1 FROM job_logs") == []


async def test_an_application_that_fails_at_its_import_is_shown_with_its_line(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "broken_app.py").write_text("\n1 / 0")
    code, _, said = await process(
        "api", url=database_url, PGQUEUE_APP="broken_app:create", PYTHONPATH=str(tmp_path)
    )
    assert code == 1, said
    assert "ZeroDivisionError" in said
    assert 'broken_app.py", line 2' in said
