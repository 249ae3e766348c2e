"""Takes the guards out of the SQL, one at a time, and wants a test to fail each time.

    python3 dev.py mutants            every guard of tests/guards/*.py
    python3 dev.py mutants NAME ...   those whose names begin so

A plugin of pytest: it runs the tests that the table names, each once for every guard that it is
named for, with the statement changed where the test process reads it (a copy of sql/; the product's
own files stay as they are, and so do child processes). Such a test has to fail, in its own body,
and not because the changed statement makes no sense to Postgres.
"""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgqueue.database.migrations import functions, migrate
from pgqueue.database.worker_connection import load
from tests.guards import Guard, Test
from tests.guards.queries import QUERIES
from tests.guards.schema import SCHEMA
from tests.support.logins import make_logins
from tests.support.places import ROOT

GUARDS = [*QUERIES, *SCHEMA]
NAMED = {guard.name: guard for guard in GUARDS}

SENSELESS = (
    psycopg.errors.SyntaxError,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.AmbiguousColumn,
    psycopg.errors.AmbiguousFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.GroupingError,
)


def chosen(names: list[str], *, fast: bool = False) -> list[Guard]:
    """Those whose name begins with one of these words (all when there are none), as far as tests
    guard them."""
    wanted = [guard for guard in GUARDS if not names or guard.name.startswith(tuple(names))]
    return [guard for guard in wanted if guard.tests and not (fast and guard.slow)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants", default="", help="guards to take out, separated by commas")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    place = metafunc.definition.nodeid.removeprefix("tests/").replace(".py::", "::")
    names = metafunc.config.getoption("mutants").split(",")
    here = [name for name in names if any(test.place == place for test in NAMED[name].tests)]
    if here:
        metafunc.parametrize("mutant", here, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with parameters only the case that the guard names, and that on one version of
    Postgres."""
    found: set[tuple[str, Test]] = set()
    kept = []
    for item in items:
        if isinstance(item, pytest.Function) and (named := tests_of(item)):
            kept.append(item)
            found |= named
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    wanted = {
        (name, test)
        for name in config.getoption("mutants").split(",")
        for test in NAMED[name].tests
    }
    if missing := sorted(
        f"{name} names {test.place}[{test.case}]" for name, test in wanted - found
    ):
        raise pytest.UsageError("no such test: " + "; ".join(missing))


def tests_of(item: pytest.Function) -> set[tuple[str, Test]]:
    """The guard that this test is to be run without, and the test as the guard names it."""
    case = getattr(item, "callspec", None)
    if case is None or "mutant" not in case.params:
        return set()
    newest = max((mark.args for mark in item.iter_markers("postgres")), default=(0,))[-1]
    if case.params.get("postgres_major", newest) != newest:
        return set()
    name = case.params["mutant"]
    place = item.nodeid.partition("[")[0].removeprefix("tests/").replace(".py::", "::")
    tests = [test for test in NAMED[name].tests if test.place == place]
    return {(name, test) for test in tests if not test.case or f"-{test.case}-" in f"-{case.id}-"}


@pytest.fixture(autouse=True)
def mutant(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    guard = NAMED[request.param]
    # Before the change, so that the template of all databases is made from what is.
    url = (
        request.getfixturevalue("database_url") if "database_url" in request.fixturenames else None
    )
    overlay = tmp_path / "sql"
    shutil.copytree(ROOT / "sql", overlay)
    changed = overlay / guard.file
    changed.write_text(guard.taken_out(changed.read_text()))
    for reader in ("pgqueue.database.statements.files", "pgqueue.database.migrations.files"):
        monkeypatch.setattr(reader, lambda package: overlay / package.rpartition(".")[2])
    load.cache_clear()
    functions.cache_clear()
    if url and guard.file.startswith(("migrations/", "functions/")):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            connection.execute("GRANT USAGE ON SCHEMA public TO public")
        asyncio.run(migrate(url))
        make_logins(autocommit=True, **conninfo_to_dict(url))
    yield
    load.cache_clear()
    functions.cache_clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    """Turned round: a test that fails is what is wanted."""
    report = yield
    if report.when == "call" and not report.skipped:
        name = item.callspec.params["mutant"]
        guard = NAMED[name]
        if report.passed:
            report.outcome = "failed"
            report.longrepr = (
                f"{name} survives: {item.nodeid} passes although in sql/{guard.file}\n{guard.told}"
            )
        elif not senseless(call.excinfo):
            report.outcome = "passed"
    return report


def senseless(info: pytest.ExceptionInfo[BaseException] | None) -> bool:
    error = info.value if info else None
    while error is not None:
        if isinstance(error, SENSELESS):
            return True
        error = error.__cause__ or error.__context__
    return False


def arguments(guards: list[Guard]) -> list[str]:
    """What pytest is given to try these guards."""
    files = sorted({f"tests/{test.file}.py" for guard in guards for test in guard.tests})
    return [
        "-p",
        "tests.guards.mutants",
        "-p",
        "no:cacheprovider",
        "--mutants",
        ",".join(guard.name for guard in guards),
        *files,
    ]


def main(given: list[str]) -> int:
    names = [word for word in given if not word.startswith("-")]
    guards = chosen(names)
    if not guards:
        print(
            (
                f"no guard has a name that begins with {' or '.join(names)}; they are in "
                "tests/guards/*.py"
            ),
            file=sys.stderr,
        )
        return 2
    print(f"taking out {len(guards)} guards, one at a time; a dot is a guard that some test misses")
    return int(pytest.main([*arguments(guards), "--tb=short"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
