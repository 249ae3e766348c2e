"""The table of guards is whole and true: nothing in the SQL that guards is missing from it, and
each guard is missed by a test."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards import Guard, code
from tests.guards.queries import QUERIES
from tests.guards.schema import SCHEMA
from tests.support.places import ROOT

GUARDS = [*QUERIES, *SCHEMA]
FILES = sorted(
    path.relative_to(ROOT / "sql").as_posix()
    for room in ("queries", "migrations", "functions")
    for path in ROOT.glob(f"sql/{room}/*.sql")
)

GUARDING = re.compile(
    r"\blease = |SKIP LOCKED|FOR (NO KEY "
    r")?UPDATE|pg_(try_)?advisory_xact_lock|\bUNIQUE\b|PRIMARY KEY|ON CONFLICT"
    r"|processed_at IS NULL|status (=|<>) 'processing'|status (NOT )?IN \("
)
"""What guards look like."""

ADVICE = """
If the statement was changed, give its entry in tests/guards/*.py the new words. If the guard is
new, make an entry, and a test that fails without it. If it was removed on purpose, remove its
entry. Then try it: python3 dev.py mutants {name}"""


def code_of(file: str) -> str:
    return code((ROOT / "sql" / file).read_text())


@pytest.mark.parametrize("file", FILES)
def test_every_guard_is_in_the_table(file: str) -> None:
    text = code_of(file)
    listed = [
        place.span()
        for guard in GUARDS
        if guard.file == file
        for _, places in guard.places(text)
        for place in places
    ]
    missing = [
        f"sql/{file}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for found in GUARDING.finditer(text)
        if not any(start <= found.start() and found.end() <= end for start, end in listed)
    ]
    assert not missing, (
        f"not in the table of guards: {', '.join(missing)}{ADVICE.format(name=Path(file).stem)}"
    )


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_an_entry_means_words_that_are_there_once(guard: Guard) -> None:
    for old, places in guard.places(code_of(guard.file)):
        advice = ADVICE.format(name=guard.name)
        assert len(places) == 1, (
            f"sql/{guard.file} has {old!r} {len(places)} times, not once.{advice}"
        )
        assert guard.swaps[old] != old
    assert bool(guard.tests) != bool(guard.why), (
        "either a test misses it, or it is said why none can"
    )


def test_no_two_entries_have_one_name() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_the_tests_that_are_named_exist() -> None:
    there: dict[str, set[str]] = {}
    for test in (test for guard in GUARDS for test in guard.tests):
        if test.file not in there:
            tree = ast.parse((ROOT / "tests" / f"{test.file}.py").read_text())
            classes = [
                (f"{node.name}::", node.body)
                for node in tree.body
                if isinstance(node, ast.ClassDef)
            ]
            there[test.file] = {
                f"{test.file}::{prefix}{node.name}"
                for prefix, body in [("", tree.body), *classes]
                for node in body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        assert test.place in there[test.file]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("room", ["queries", "schema"])
def test_each_guard_is_missed_when_it_is_taken_out(room: str) -> None:
    """Really taken out, in a process of its own. What takes long is left to `dev.py mutants`."""
    guards = {"queries": QUERIES, "schema": SCHEMA}[room]
    names = [guard.name for guard in guards if guard.tests and not guard.slow]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "tests.guards.mutants", *names]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
