"""The house: which way the arrows point, and one caller for every statement."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

MODULES = sorted([*ROOT.glob("pgqueue/**/*.py"), *ROOT.glob("service/**/*.py")])
STATEMENTS = sorted(path.stem for path in ROOT.glob("sql/queries/*.sql"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def texts_in(path: Path) -> list[tuple[int, str]]:
    """Line and content of each string constant."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@functools.cache
def imports(path: Path) -> set[str]:
    """Everything that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
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


def module_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "service" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMED = {module_of(path): path for path in MODULES}
FACADE = "pgqueue"
"""Imports the whole library for its users; no module of the library imports from it."""

USER = "pgqueue.pytest_plugin"
"""A part of the library that is written as its users' tests are."""

ENTRY_POINTS = {"pgqueue.worker.__main__", "pgqueue.cli.__main__", "pgqueue_service.demo.__main__"}
"""Programs, which no module imports: `python -m pgqueue.worker` is a command of pgqueue.cli."""

ONLY_FOR_TYPES = {("pgqueue.job", "pgqueue.attempt"), (USER, FACADE)}
"""Imported under TYPE_CHECKING: NewJob says what a task is, and a task says what its handler is
given; a plugin of pytest is loaded before anything else, and loads nothing itself."""


def only_for_types(tree: ast.AST) -> set[int]:
    """The import nodes that stand under `if TYPE_CHECKING`."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for one in node.body
        for inner in ast.walk(one)
    }


@functools.cache
def edges(module: str, *, types: bool) -> set[str]:
    """Our modules that a module imports, at its top or in a function: those under TYPE_CHECKING, or
    all others."""
    tree = tree_of(NAMED[module])
    typed = only_for_types(tree)
    found = set()
    for node in ast.walk(tree):
        if (id(node) in typed) is not types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; `from module import name` the module
            # that has the name.
            found |= inner & NAMED.keys() or {node.module}
    return (found & NAMED.keys()) - {module}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that lead to each other (Tarjan's strongly connected components)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        numbers[node] = lowest[node] = len(numbers)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in numbers:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], numbers[other])
        if lowest[node] == numbers[node]:
            position = stack.index(node)
            group = sorted(stack[position:])
            del stack[position:]
            if len(group) > 1:
                found.append(group)

    for node in sorted(graph):
        if node not in numbers:
            visit(node)
    return found


def room_of(module: str) -> str:
    """pgqueue.worker.acker -> pgqueue.worker; pgqueue.client -> pgqueue.client."""
    return ".".join(module.split(".")[:2])


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set[str]()}
    assert circles(graph) == [["a", "b", "c"]]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({module: edges(module, types=False) for module in NAMED}) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module in NAMED.keys() - ENTRY_POINTS - {FACADE}:
        mine = rooms.setdefault(room_of(module), set())
        mine |= {room_of(other) for other in edges(module, types=False)} - {room_of(module)}
    assert circles(rooms) == []


def test_what_is_imported_for_types_alone_is_listed() -> None:
    assert {
        (module, other) for module in NAMED for other in edges(module, types=True)
    } == ONLY_FOR_TYPES


def test_no_module_of_the_library_imports_from_its_facade() -> None:
    assert [
        module
        for module in NAMED
        if module.startswith("pgqueue.") and module != USER and FACADE in edges(module, types=False)
    ] == []


MAX_POSITIONAL = 5


def test_constructors_with_many_arguments_take_them_by_keyword() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{method.lineno} {one.name}"
        for path in MODULES
        for one in ast.walk(tree_of(path))
        if isinstance(one, ast.ClassDef)
        for method in one.body
        if isinstance(method, ast.FunctionDef)
        and method.name == "__init__"
        and len(method.args.posonlyargs + method.args.args) - 1 > MAX_POSITIONAL
    ]
    assert wrong == []


def test_the_library_never_imports_the_service() -> None:
    assert importing("pgqueue/", "pgqueue_service", "benchmarks", "tests") == []


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
                "pgqueue/pytest_plugin/",
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
        (
            "pgqueue/enqueue/",
            ["pgqueue.worker", "pgqueue.client", "pgqueue.sync_client", "pgqueue.cli"],
        ),
        ("pgqueue/client.py", ["pgqueue.worker", "pgqueue.policy", "pgqueue.cli"]),
        ("pgqueue/sync_client.py", ["pgqueue.worker", "pgqueue.policy", "pgqueue.cli"]),
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
            ["pgqueue_service.api", "litestar", "psycopg"],
        ),
        ("service/pgqueue_service/api/", ["pgqueue_service.notifications", "httpx", "jinja2"]),
    ],
)
def test_arrows_point_one_way(room: str, others: list[str]) -> None:
    assert importing(room, *others) == []


FLOORS = [
    ("app.py", "cli/"),
    ("api/", "server/", "notifications/", "demo/"),
    ("settings.py", "tokens.py", "text.py", "times.py", "loopback.py", "__init__.py"),
]
"""The service from top to bottom; below it is the library."""


def service_imports() -> dict[str, set[str]]:
    """Module of the service -> modules of the service that it imports, as paths in the package."""
    home = ROOT / "service/pgqueue_service"
    paths = {
        ".".join(["pgqueue_service", *path.relative_to(home).with_suffix("").parts]): path
        for path in home.glob("**/*.py")
    }
    by_name = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {}
    for path in by_name.values():
        names = imports(path)
        # `from a import b` names a.b too; where that is a module, a itself is not meant.
        meant = {
            name
            for name in names
            if name in by_name
            and not any(other.rpartition(".")[0] == name and other in by_name for other in names)
        }
        found[path.relative_to(home).as_posix()] = {
            by_name[name].relative_to(home).as_posix() for name in meant
        } - {path.relative_to(home).as_posix()}
    return found


def floor(module: str) -> int:
    (found,) = [number for number, rooms in enumerate(FLOORS) if module.startswith(rooms)]
    return found


def test_no_arrow_of_the_service_points_to_a_floor_above() -> None:
    upward = [
        f"{module} imports {other}"
        for module, others in service_imports().items()
        for other in others
        if floor(other) < floor(module)
    ]
    assert upward == []


def test_no_modules_of_the_service_import_each_other_in_a_circle() -> None:
    left = service_imports()
    while leaves := [module for module, others in left.items() if not others & left.keys()]:
        for module in leaves:
            del left[module]
    assert left == {}


def test_no_rooms_of_the_service_import_each_other_in_a_circle() -> None:
    def room(module: str) -> str:
        return module.partition("/")[0]

    left: dict[str, set[str]] = {}
    for module, others in service_imports().items():
        left.setdefault(room(module), set()).update(map(room, others) if others else ())
    while leaves := [one for one, others in left.items() if not others & (left.keys() - {one})]:
        for one in leaves:
            del left[one]
    assert left == {}


def test_no_task_of_the_notifications_knows_the_driver() -> None:
    users = {
        line.split(" ", 1)[0].rpartition("/")[2]
        for line in importing("service/pgqueue_service/notifications", "psycopg")
    }
    assert users == {"legacy_import.py"}


FOREIGN = re.compile(
    r"smtp|sendgrid|sign[-_ ]?in\b|signin|\bbull|jinja|litestar|uvicorn|pgqueue_service"
    r"|(?<!e-)mail",
    re.IGNORECASE,
)
"""What belongs to users of the library, or to the service. E-mail addresses are masked in any
text."""


def test_the_library_names_nothing_of_its_users() -> None:
    said = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in ROOT.glob("pgqueue/**/*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert said == []


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_has_exactly_one_caller(statement: str) -> None:
    callers = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        for line, text in texts_in(path)
        if text == statement
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
