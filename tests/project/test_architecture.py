"""The house: which way the arrows point, and one caller for every statement."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

MODULES = sorted([*ROOT.glob("pgqueue/**/*.py"), *ROOT.glob("service/**/*.py")])
STATEMENTS = sorted(path.stem for path in ROOT.glob("sql/queries/*.sql"))


def imports(path: Path) -> set[str]:
    """Everything that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importing(folder: str, *names: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).as_posix().startswith(folder)
        for name in imports(path)
        if any(name == one or name.startswith(f"{one}.") for one in names)
    ]


def test_the_library_never_imports_the_service() -> None:
    assert importing("pgqueue/", "pgqueue_service") == []


def test_the_library_knows_no_http_and_no_mail() -> None:
    web = ("litestar", "uvicorn", "httpx", "aiosmtplib", "jinja2", "smtplib", "email")
    assert importing("pgqueue/", *web) == []


def test_only_the_command_line_and_the_tests_know_the_embedded_server() -> None:
    users = importing("", "pgqueue.embedded")
    assert [
        line
        for line in users
        if not line.startswith(
            (
                "pgqueue/cli/",
                "pgqueue/embedded",
                "service/pgqueue_service/cli/",
                "service/pgqueue_service/demo/",
            )
        )
    ] == []


@pytest.mark.parametrize(
    ("room", "others"),
    [
        (
            "pgqueue/policy.py",
            ["pgqueue.worker", "pgqueue.client", "pgqueue.database", "psycopg"],
        ),
        (
            "pgqueue/job.py",
            [
                "pgqueue.worker",
                "pgqueue.client",
                "pgqueue.database",
                "pgqueue.policy",
                "pgqueue.task",
                "psycopg",
            ],
        ),
        (
            "pgqueue/errors.py",
            [
                "pgqueue.worker",
                "pgqueue.client",
                "pgqueue.database",
                "pgqueue.job",
                "psycopg",
            ],
        ),
        (
            "pgqueue/database/",
            ["pgqueue.worker", "pgqueue.client", "pgqueue.policy", "pgqueue.job"],
        ),
        ("pgqueue/client.py", ["pgqueue.worker", "pgqueue.policy", "pgqueue.cli"]),
        (
            "pgqueue/worker/performer.py",
            [
                "pgqueue.database",
                "psycopg",
                "pgqueue.worker.acker",
                "pgqueue.worker.claimer",
            ],
        ),
        (
            "pgqueue/worker/claimer.py",
            ["pgqueue.worker.performer", "pgqueue.worker.acker", "pgqueue.policy"],
        ),
        (
            "pgqueue/worker/acker.py",
            ["pgqueue.worker.performer", "pgqueue.worker.claimer", "pgqueue.task"],
        ),
        ("pgqueue/worker/", ["pgqueue.client", "pgqueue.cli.status"]),
        (
            "service/pgqueue_service/notifications/mail/",
            ["pgqueue_service.api.controllers", "pgqueue_service.app", "litestar"],
        ),
        (
            "service/pgqueue_service/notifications/",
            ["pgqueue_service.api.controllers", "pgqueue_service.app", "litestar", "psycopg"],
        ),
    ],
)
def test_arrows_point_one_way(room: str, others: list[str]) -> None:
    found = importing(room, *others)
    # The table of the old service is read by SQL of its own, and by no task.
    assert [line for line in found if "/legacy_import.py imports psycopg" not in line] == []


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_has_exactly_one_caller(statement: str) -> None:
    callers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == statement
    ]
    places = {caller.rsplit(":", 1)[0] for caller in callers}
    assert len(places) == 1, f"{statement}.sql is named in {callers or 'no module'}"


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_says_what_it_is_for_and_is_one(statement: str) -> None:
    text = (ROOT / "sql" / "queries" / f"{statement}.sql").read_text()
    assert text.startswith("-- ")
    code = re.sub(r"--[^\n]*", "", text)
    assert ";" not in code, "one statement, without a semicolon"


def test_the_queue_never_reads_the_machine_s_clock() -> None:
    """Only the database's clock decides; waits and durations go by the monotonic one."""
    wrong = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in MODULES
        if path.relative_to(ROOT).as_posix().startswith("pgqueue/")
        for match in re.finditer(r"datetime\.(now|utcnow|today)\(|time\.time\(", path.read_text())
    ]
    assert wrong == []


def test_the_public_surface_is_small() -> None:
    import pgqueue

    assert len(pgqueue.__all__) <= 36
    assert all(hasattr(pgqueue, name) for name in pgqueue.__all__)
