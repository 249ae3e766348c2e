"""dev.py: from a bare Python to a running project, and no second time without need."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dev

ROOT = Path(dev.__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_alone_it_prints_help(arguments: list[str]) -> None:
    done = run(str(ROOT / "dev.py"), *arguments)
    assert done.returncode == 0
    assert all(f"dev.py {verb} " in done.stdout for verb in ("demo", "test", "up", "run", "check", "mutants", "constraints"))


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run(str(ROOT / "dev.py"), "frobnicate")
    assert done.returncode == 2
    assert "no command 'frobnicate'" in done.stderr


@pytest.mark.parametrize(("version", "refused"), [((3, 6), True), ((3, 10), True), ((3, 11), False), ((4, 0), False)])
def test_which_pythons_are_too_old(version: tuple[int, int], refused: bool) -> None:
    assert dev.too_old(version) is refused


def test_an_old_python_is_told_so_and_sees_no_traceback() -> None:
    code = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path(sys.argv[1], run_name='__main__')"
    done = run("-c", code, str(ROOT / "dev.py"))
    assert done.returncode == 1
    assert done.stderr.strip() == "pgqueue needs Python 3.11 or newer, and this is 3.9: try python3.13 dev.py"


def test_an_old_python_can_read_it_up_to_that_point() -> None:
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 6))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a .venv, that dev.py takes for its own."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("click==8.5.1\n")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    for name in ("VENV", "STAMP", "UNFINISHED"):
        monkeypatch.setattr(dev, name, tmp_path / getattr(dev, name).relative_to(ROOT))
    return tmp_path


def test_it_installs_again_when_what_it_installs_has_changed(project: Path) -> None:
    stamps = [dev.wanted_stamp(project)]
    for name in ("pyproject.toml", "constraints.txt"):
        (project / name).write_text("changed\n")
        stamps.append(dev.wanted_stamp(project))
    (project / "README.md").write_text("changed\n")
    assert len(set(stamps)) == 3
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

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, uv: str | None, failing: str = "nothing") -> None:
        self.taken: list[str] = []
        self.failing = failing
        monkeypatch.setattr(dev.shutil, "which", lambda _: uv)
        monkeypatch.setattr(dev, "install_with_uv", lambda _: self.take("uv"))
        monkeypatch.setattr(dev, "install_with_pip", lambda: self.take("pip"))
        monkeypatch.setattr(dev, "usable", lambda venv: venv.exists() and not dev.UNFINISHED.exists())

    def take(self, name: str) -> None:
        self.taken.append(name)
        dev.VENV.mkdir(exist_ok=True)
        if name in self.failing:
            raise dev.Trouble(f"{name} has no network")


@pytest.mark.parametrize(("uv", "taken"), [("/opt/uv", ["uv"]), (None, ["pip"])])
def test_uv_is_used_where_it_is(project: Path, monkeypatch: pytest.MonkeyPatch, uv: str | None, taken: list[str]) -> None:
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


def test_a_failed_update_keeps_the_venv_and_is_tried_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    [["-n0"], ["-n", "4"], ["--numprocesses=2"], ["-s"], ["-xvs"], ["--pdb"], ["-p", "no:xdist"], ["--co"], ["tests/a.py::b"]],
)
def test_what_speaks_against_all_cores(given: list[str]) -> None:
    assert dev.pytest_arguments(given, 4) == given


@pytest.mark.parametrize("given", [[], ["-x"], ["-k", "dev"], ["--color=no"], ["tests/test_dev.py"], ["a.py::b", "a.py::c"]])
def test_else_tests_run_on_all_cores(given: list[str]) -> None:
    assert dev.pytest_arguments(given, 4) == ["-n", "4", "--dist", "worksteal", *given]
    assert dev.pytest_arguments(given, 64)[1] == "8"
    assert dev.pytest_arguments(given, 1) == given


def test_constraints_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9-]+==[\w.]+( ; [\w .'<>=!]+)?", line)] == []
    assert not re.search(r"https?:|file:|index-url|find-links|[a-z]+\.(org|com|io|net)\b", "\n".join(lines))


def test_every_dependency_is_constrained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split(r"[^\w-]", one)[0].lower() for one in declared} - {"pgqueue"}
    constrained = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= constrained
