"""Both products as wheels, installed into environments of their own and used outside of the
checkout.

Needs the network, or a cache of packages: it installs what the wheels depend on.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT
from tests.support.scene import until

pytestmark = pytest.mark.timeout(300)

OFFLINE = re.compile(
    r"dns error|name resolution|client error \(Connect\)|Failed to establish a new connection"
    r"|network is unreachable|error sending request|timed out",
    re.IGNORECASE,
)
FIVE = {"psycopg", "psycopg-pool", "msgspec", "click", "rich"}
"""What the library depends on."""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def clean(**more: str) -> dict[str, str]:
    """The environment without anything of this checkout or of its settings."""
    ours = ("PGQUEUE_", "DATABASE_", "MAIL_", "SMTP_", "SENDGRID_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return kept | more


def install(*command: str | Path, cwd: Path) -> None:
    """Runs a command that may need the network; skips the test where there is none."""
    done = run(*command, cwd=cwd)
    if done.returncode and OFFLINE.search(done.stderr + done.stdout):
        pytest.skip(f"no network: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`library` and `service`, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheels")
    source = folder / "source"
    for name in ("pgqueue", "sql", "service"):
        shutil.copytree(
            ROOT / name,
            source / name,
            ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build: list[str | Path] = ["uv", "build", "--wheel", "--quiet", "--out-dir", folder]
    if not shutil.which("uv"):
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder]
    for product in (source, source / "service"):
        install(*build, product, cwd=source)
    return {
        "library": next(folder.glob("pgqueue_jobs-*.whl")),
        "service": next(folder.glob("pgqueue_service-*.whl")),
    }


def environment_with(folder: Path, *products: Path) -> Path:
    """A fresh environment with these wheels; returns its folder of programs."""
    if shutil.which("uv"):
        install("uv", "venv", "--quiet", "--python", sys.executable, folder / "env", cwd=folder)
        pip: list[str | Path] = ["uv", "pip", "install", "--quiet", "--python", folder / "env"]
    else:
        install(sys.executable, "-m", "venv", folder / "env", cwd=folder)
        pip = [folder / "env/bin/python", "-m", "pip", "install", "--quiet"]
    install(*pip, "-c", ROOT / "constraints.txt", *products, cwd=folder)
    return folder / "env" / "bin"


def metadata(programs: Path, cwd: Path) -> dict[str, list[str]]:
    """Distribution -> what it requires without an extra, by normalized names."""
    code = (
        "import json, re; from importlib.metadata import distributions\n"
        "norm = lambda text: re.sub(r'[-_.]+', '-', text).lower()\n"
        "name = lambda text: norm(re.match(r'[\\w.-]+', text)[0])\n"
        "print(json.dumps({norm(d.name): [name(r) for r in d.requires or () if 'extra ==' not in r]"
        " for d in distributions()}))"
    )
    done = run(programs / "python", "-c", code, cwd=cwd)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def an_application(folder: Path) -> Path:
    """A folder of somebody's own, whose packages have the names of folders of this checkout."""
    app = folder / "app"
    for name in ("service", "tests", "jobs", "sql"):
        (app / name).mkdir(parents=True)
        (app / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    (app / "jobs" / "tasks.py").write_text(
        "import jobs, service, sql, tests\n"
        "from typing import Any\n"
        "from pgqueue import Job, task\n\n"
        "@task('app.job')\n"
        "async def handler(job: Job[Any]) -> None:\n"
        "    mine = [one.MINE for one in (jobs, service, sql, tests)]\n"
        "    assert mine == ['jobs', 'service', 'sql', 'tests'], mine\n"
    )
    return app


@contextmanager
def running(program: Path, *arguments: str, cwd: Path, **environment: str) -> Iterator[Path]:
    """A process until the block ends; yields the file of what it says. It must stop in order."""
    log = cwd / f"{arguments[0]}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(program), *arguments],
            cwd=cwd,
            env=clean(**environment),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert code == 0, log.read_text()


def fetch(url: str, body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer; a body is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.load(answer)


async def test_the_library_alone_serves_an_application_that_has_packages_of_the_same_names(
    wheels: dict[str, Path], tmp_path: Path, empty_database_url: str
) -> None:
    programs = environment_with(tmp_path, wheels["library"])
    app, pgqueue = an_application(tmp_path), programs / "pgqueue"
    installed = metadata(programs, app)
    assert set(installed["pgqueue-jobs"]) == FIVE
    needed, found = {"pgqueue-jobs"}, set[str]()
    while needed:
        found.add(name := needed.pop())
        needed |= set(installed.get(name, ())) - found
    compiled = "psycopg-binary"  # psycopg[binary] brings its own libpq
    assert set(installed) - {"pip", "setuptools", compiled} <= found
    assert not {"litestar", "uvicorn", "httpx", "aiosmtplib", "jinja2"} & set(installed)

    where: dict[str, Any] = {"cwd": app, "DATABASE_URL": empty_database_url}
    offered = run(pgqueue, "--help", **where)
    assert offered.returncode == 0
    assert "  worker " in offered.stdout
    assert "  api " not in offered.stdout
    refused = run(pgqueue, "api", **where)
    assert refused.returncode == 2
    assert "pip install pgqueue-service" in refused.stderr
    refused = run(pgqueue, "migrate", "--adopt", **where)
    assert refused.returncode == 2
    assert "pip install pgqueue-service" in refused.stderr
    refused = run(pgqueue, "worker", **where)
    assert refused.returncode == 2
    assert "PGQUEUE_MODULES is not set" in refused.stderr

    where["PGQUEUE_MODULES"] = "jobs.tasks"
    migrated = run(pgqueue, "migrate", **where)
    assert migrated.returncode == 0, migrated.stderr
    assert "published job type app.job" in migrated.stdout
    enqueued = run(pgqueue, "enqueue", "app.job", "--payload", "{}", "--job-id", "one", **where)
    assert enqueued.returncode == 0, enqueued.stderr
    with running(pgqueue, "worker", **where) as log:
        await until(lambda: "job.completed" in log.read_text(), 60)
    shown = json.loads(run(pgqueue, "job", "one", "--json", **where).stdout)
    assert shown["status"] == "completed"
    settings = run(pgqueue, "status", **where).stdout
    assert "PGQUEUE_LEASE" in settings
    assert "PGQUEUE_ADMIN_TOKENS" not in settings


async def test_the_service_beside_it_answers_and_sends(
    wheels: dict[str, Path], tmp_path: Path, empty_database_url: str
) -> None:
    programs = environment_with(tmp_path, wheels["library"], wheels["service"])
    app, pgqueue = an_application(tmp_path), programs / "pgqueue"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where: dict[str, Any] = {"cwd": app, "DATABASE_URL": empty_database_url, "PORT": port}
    offered = run(pgqueue, "--help", **where)
    assert re.search(r"^  api  +Serve", offered.stdout, re.MULTILINE)
    migrated = run(pgqueue, "migrate", "--adopt", **where)
    assert migrated.returncode == 0, migrated.stderr
    assert "published job type user.signin.notification" in migrated.stdout
    assert "PGQUEUE_SIGNIN_LIMIT" in run(pgqueue, "status", **where).stdout
    with (
        running(pgqueue, "api", **where) as api,
        running(pgqueue, "worker", **where) as worker,
    ):
        await until(lambda: "api.ready" in api.read_text(), 60)
        base = f"http://127.0.0.1:{port}"
        assert await asyncio.to_thread(fetch, f"{base}/healthz") == (200, {"status": "ok"})
        sign_in = {"userId": "u1", "email": "ana@example.com", "name": "Ana"}
        where_to = f"{base}/api/jobs/signin-notification"
        status, ticket = await asyncio.to_thread(fetch, where_to, sign_in)
        assert (status, ticket["status"]) == (202, "enqueued")
        await until(lambda: "EMAIL SENT (LOG-ONLY MODE)" in worker.read_text(), 60)
