"""dev.py: from a bare Python to a running project, and no second time without need."""

import ast
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import dev

ROOT = Path(dev.__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd="/", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_alone_it_prints_help(arguments: list[str]) -> None:
    done = run(str(ROOT / "dev.py"), *arguments)
    assert done.returncode == 0
    verbs = (
        "demo",
        "test",
        "up",
        "run",
        "check",
        "audit",
        "bench",
        "chaos",
        "mutants",
        "constraints",
    )
    assert all(f"dev.py {verb} " in done.stdout for verb in verbs)


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run(str(ROOT / "dev.py"), "frobnicate")
    assert done.returncode == 2
    assert "no command 'frobnicate'" in done.stderr


@pytest.mark.parametrize(
    ("version", "refused"), [((3, 6), True), ((3, 10), True), ((3, 11), False), ((4, 0), False)]
)
def test_which_pythons_are_too_old(version: tuple[int, int], refused: bool) -> None:
    assert dev.too_old(version) is refused


def test_an_old_python_is_told_so_and_sees_no_traceback() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path(sys.argv[1], "
        "run_name='__main__')"
    )
    done = run("-c", code, str(ROOT / "dev.py"))
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "pgqueue needs Python 3.11 or newer, and this is 3.9: try python3.13 dev.py"
    )


def test_an_old_python_can_read_it_up_to_that_point() -> None:
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 6))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a .venv, that dev.py takes for its own."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("click==8.5.1\n")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    for name in ("VENV", "STAMP", "UNFINISHED"):
        monkeypatch.setattr(dev, name, tmp_path / getattr(dev, name).relative_to(ROOT))
    return tmp_path


def test_it_installs_again_when_what_it_installs_has_changed(project: Path) -> None:
    stamps = [dev.wanted_stamp(project)]
    for name in dev.MADE_FROM:
        (project / name).write_text("changed\n")
        stamps.append(dev.wanted_stamp(project))
    (project / "README.md").write_text("changed\n")
    assert len(set(stamps)) == 1 + len(dev.MADE_FROM)
    assert dev.wanted_stamp(project) == stamps[-1]


def test_it_installs_again_when_the_folder_was_moved(project: Path) -> None:
    before = dev.wanted_stamp(project)
    moved = project.rename(project.with_name("moved here"))
    assert dev.wanted_stamp(moved) != before


def test_a_stamp_counts_only_when_it_is_the_wanted_one(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not dev.is_current(stamp, "abc")
    stamp.write_text("abc\n")
    assert dev.is_current(stamp, "abc")
    assert not dev.is_current(stamp, "abd")


def test_a_venv_that_is_broken_or_unfinished_counts_as_none(tmp_path: Path) -> None:
    assert not dev.usable(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/nowhere/python")
    assert not dev.usable(tmp_path)
    (tmp_path / "bin" / "python").unlink()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    assert dev.usable(tmp_path)
    (tmp_path / dev.UNFINISHED.name).touch()
    assert not dev.usable(tmp_path)


class Steps:
    """Stands in for the commands that an installation runs."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, uv: str | None, failing: str = "nothing"
    ) -> None:
        self.taken: list[str] = []
        self.failing = failing
        monkeypatch.setattr(dev.shutil, "which", lambda _: uv)
        monkeypatch.setattr(dev, "install_with_uv", lambda _: self.take("uv"))
        monkeypatch.setattr(dev, "install_with_pip", lambda: self.take("pip"))
        monkeypatch.setattr(
            dev, "usable", lambda venv: venv.exists() and not dev.UNFINISHED.exists()
        )

    def take(self, name: str) -> None:
        self.taken.append(name)
        dev.VENV.mkdir(exist_ok=True)
        if name in self.failing:
            raise dev.Trouble(f"{name} has no network")


@pytest.mark.parametrize(("uv", "taken"), [("/opt/uv", ["uv"]), (None, ["pip"])])
def test_uv_is_used_where_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, uv: str | None, taken: list[str]
) -> None:
    steps = Steps(monkeypatch, uv=uv)
    dev.ensure_installed()
    dev.ensure_installed()
    assert steps.taken == taken


def test_where_uv_fails_pip_has_a_try(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps(monkeypatch, uv="/opt/uv", failing="uv")
    dev.ensure_installed()
    assert steps.taken == ["uv", "pip"]
    captured = capsys.readouterr()
    assert "uv has no network" in captured.err
    assert captured.out == ""


def test_a_failed_update_keeps_the_venv_and_is_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch, uv=None)
    dev.ensure_installed()
    (dev.VENV / "kept").touch()
    (project / "constraints.txt").write_text("click==8.5.2\n")
    steps.failing = "pip"
    with pytest.raises(dev.Trouble, match="no network"):
        dev.ensure_installed()
    assert (dev.VENV / "kept").exists()
    steps.failing = "nothing"
    dev.ensure_installed()
    assert steps.taken == ["pip", "pip", "pip"]


@pytest.mark.parametrize(
    "given",
    [
        ["-n0"],
        ["-n", "4"],
        ["--numprocesses=2"],
        ["-s"],
        ["-xvs"],
        ["--pdb"],
        ["-p", "no:xdist"],
        ["--co"],
        ["tests/a.py::b"],
    ],
)
def test_what_speaks_against_all_cores(given: list[str]) -> None:
    assert dev.pytest_arguments(given, 4) == given


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["-x"],
        ["-k", "dev"],
        ["--color=no"],
        ["tests/project/test_dev.py"],
        ["a.py::b", "a.py::c"],
    ],
)
def test_else_tests_run_on_all_cores(given: list[str]) -> None:
    assert dev.pytest_arguments(given, 4) == ["-n", "4", "--dist", "worksteal", *given]
    assert dev.pytest_arguments(given, 64)[1] == "8"
    assert dev.pytest_arguments(given, 1) == given


class Osv(BaseHTTPRequestHandler):
    """Stands in for the service that is asked; `known` is name -> versions that mend what is known
    of it."""

    known: ClassVar[dict[str, list[str]]] = {}

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        events = [
            {"introduced": "0"},
            *({"fixed": version} for version in self.known.get(name, ())),
        ]
        affected = {
            "package": {"name": name, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        vulnerability = {"id": "X-1", "summary": "bad", "affected": [affected]}
        body = json.dumps({"vulns": [vulnerability]} if name in self.known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(dev, "PYTHON", Path(sys.executable))
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class TestAudit:
    @pytest.mark.parametrize(
        ("known", "code", "said"),
        [
            ({}, 0, "1 packages audited, 0 known"),
            ({"click": []}, 0, "click 8.5.1: X-1, not fixed yet"),
            ({"click": ["8.5.2"]}, 1, "click 8.5.1: X-1, fixed in 8.5.2"),
        ],
    )
    def test_an_update_that_mends_something_fails_it(
        self, project: Path, osv: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        known: dict[str, list[str]], code: int, said: str,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(Osv, "known", known)
        assert dev.audit(["--osv-url", osv]) == code
        assert said in capsys.readouterr().err

    def test_our_own_constraints_can_be_audited(
        self, osv: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert dev.audit(["--osv-url", osv]) == 0
        said = capsys.readouterr().err
        assert "not audited" not in said
        assert int(re.search(r"(\d+) packages audited", said)[1]) > 60

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "nonsense"])
    def test_without_network_it_says_that_it_was_not_done(
        self, project: Path, osv: str, capsys: pytest.CaptureFixture[str], url: str
    ) -> None:
        assert dev.audit(["--osv-url", url]) == dev.UNKNOWN
        assert "THE AUDIT WAS NOT DONE" in capsys.readouterr().err

    @pytest.mark.parametrize(("code", "goes_on"), [(0, True), (1, False), (2, False), (3, True)])
    def test_ci_goes_on_without_it_but_not_against_it(
        self, tmp_path: Path, code: int, goes_on: bool
    ) -> None:
        """The lines of .ci/run from the audit on, with a dev.py that ends as is said."""
        (tmp_path / "dev.py").write_text(
            f"import sys; print(sys.argv[1]); sys.exit({code} if sys.argv[1] == 'audit' else 0)"
        )
        script = (
            "set -euo pipefail\n"
            + (ROOT / ".ci" / "run").read_text().partition("python3 dev.py check\n")[2]
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == ["audit", "test"][: 2 if goes_on else 1]
        assert (done.returncode == 0) is goes_on
        assert done.stderr.startswith(".ci/run: PASSED WITHOUT AN AUDIT") is (code == 3)

    def test_where_an_audit_is_required_ci_fails_without_one(self, tmp_path: Path) -> None:
        (tmp_path / "dev.py").write_text("import sys; sys.exit(3 if sys.argv[1] == 'audit' else 0)")
        script = (
            "set -euo pipefail\n"
            + (ROOT / ".ci" / "run").read_text().partition("python3 dev.py check\n")[2]
        )
        environment = {"PATH": os.environ["PATH"], "AUDIT": "required"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 3


def test_constraints_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [
        line
        for line in lines
        if not re.fullmatch(r"#.*|[a-z0-9-]+==[\w.]+( ; [\w .'<>=!]+)?", line)
    ] == []
    assert not re.search(
        r"https?:|file:|index-url|find-links|[a-z]+\.(org|com|io|net)\b", "\n".join(lines)
    )


def test_every_dependency_is_constrained() -> None:
    declared: list[str] = []
    for file in ("pyproject.toml", "service/pyproject.toml"):
        project = tomllib.loads((ROOT / file).read_text())["project"]
        declared += project["dependencies"]
        declared += [one for extra in project["optional-dependencies"].values() for one in extra]
    names = {re.split(r"[^\w-]", one)[0].lower() for one in declared} - {"pgqueue-jobs"}
    constrained = {
        line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert names <= constrained
