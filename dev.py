#!/usr/bin/env python3
"""Everything that a developer types, on a machine with nothing but Python 3.11 or newer.

  python3 dev.py demo             the main job from start to finish, on a Postgres of its own
  python3 dev.py test [ARGS]      all tests; ARGS go to pytest
  python3 dev.py up               the whole system, until Ctrl-C
  python3 dev.py run ARGS         pgqueue ARGS, for instance: run status
  python3 dev.py check            style and types
  python3 dev.py docs             builds docs/ into pages: build/docs/index.html
  python3 dev.py chaos [FAULTS]   faults at full size, and a report (--size, --parts, --out)
  python3 dev.py mutants [NAME]   removes the guards in the SQL, one at a time; a test must fail
                                  each time
  python3 dev.py schema [--check] remake sql/schema.sql from the migrations and functions
  python3 dev.py bench [ARGS]     the figures, against Postgres alone and against other queues
                                  (bench --help)
  python3 dev.py audit            known vulnerabilities of our dependencies; exits 1 when an
                                  update fixes one, 3 without network
  python3 dev.py constraints      remake constraints.txt (needs uv)

The first call makes .venv and installs into it, later ones only when a pyproject.toml or
constraints.txt have changed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)


def too_old(version: "tuple[int, ...]") -> bool:  # quoted: Python 3.6 must get past this line
    return tuple(version[:2]) < OLDEST


if too_old(sys.version_info[:2]):
    sys.exit(
        "pgqueue needs Python 3.11 or newer, and this is {}.{}: try python3.13 dev.py".format(
            *sys.version_info
        )
    )

ROOT = Path(__file__).resolve().parent
MADE_FROM = ("pyproject.toml", "service/pyproject.toml", "constraints.txt")
PRODUCTS = ("-c", "constraints.txt", "-e", ".[dev]", "-e", "./service[fast,demo]")
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "pgqueue-installed"
UNFINISHED = VENV / "pgqueue-unfinished"

UNKNOWN = 3
"""Exit code of an audit that could not be done."""


class Trouble(Exception):
    """What keeps us from going on, in words for the person at the terminal."""


def wanted_stamp(root: Path) -> str:
    """What an installation is made from: a change asks for another. The folder too, an editable
    installation points at it."""
    sources = [(root / name).read_bytes() for name in MADE_FROM]
    return hashlib.sha256(b"\0".join([os.fsencode(root), *sources])).hexdigest()


def is_current(stamp: Path, wanted: str) -> bool:
    try:
        return stamp.read_text().strip() == wanted
    except OSError:
        return False


def usable(venv: Path) -> bool:
    """Whether a .venv that is there was finished once, and its Python is still the one it was made
    with."""
    code = (
        "import os, sys, sysconfig; packages = sysconfig.get_path('purelib');"
        "sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix or not "
        "os.path.isdir(packages))"
    )
    try:
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-c", code], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0 and not (venv / UNFINISHED.name).exists()


def pytest_arguments(given: list[str], cores: int) -> list[str]:
    """`given`, on all cores, unless it asks for a debugger, live output, a list or one test."""
    against = re.compile(
        r"-n.*|--numprocesses.*|--dist.*|(-p)?no:xdist|--pdb|--trace|-[vqxl]*s[vqxl]*|--capture=no"
        r"|--co|--collect-only|--fixtures|--markers|-h|--help|-V|--version"
    )
    single = sum("::" in word for word in given) == 1
    if cores < 2 or single or any(against.fullmatch(word) for word in given):
        return given
    return ["-n", str(min(cores, 8)), "--dist", "worksteal", *given]


def say(text: str) -> None:
    # To stderr: what `run` prints with --json stays clean.
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def quietly(*command: str) -> None:
    """Runs a command whose output is of interest only when it fails."""
    nothing, together = subprocess.DEVNULL, subprocess.STDOUT
    done = subprocess.run(
        command, cwd=ROOT, stdin=nothing, stdout=subprocess.PIPE, stderr=together, check=False
    )
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)}\n{done.stdout.decode(errors='replace').strip()}")


def fresh_venv(*make: str) -> None:
    """Makes .venv, unless one is there that can be used. Until it is finished once, it counts as
    none."""
    if usable(VENV):
        return
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)
    quietly(*make, str(VENV))
    UNFINISHED.touch()


def install_with_uv(uv: str) -> None:
    fresh_venv(uv, "venv", "--quiet", "--python", sys.executable)
    quietly(uv, "pip", "install", "--quiet", "--python", str(PYTHON), *PRODUCTS)


def install_with_pip() -> None:
    pip = (str(PYTHON), "-m", "pip")
    try:
        fresh_venv(sys.executable, "-m", "venv")
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
            quietly(str(PYTHON), "-m", "ensurepip")
    except Trouble as trouble:
        if "ensurepip" not in str(trouble):
            raise
        advice = (
            "this Python makes no virtual environments: apt install python3-venv, or install uv"
        )
        raise Trouble(f"{trouble}\n{advice}") from None
    quietly(*pip, "install", "--quiet", "--disable-pip-version-check", *PRODUCTS)


def install() -> None:
    """Installs with uv where it is; with pip where it is not, or fails (it does not read pip's
    configuration)."""
    ways = {"pip": install_with_pip}
    uv = shutil.which("uv")
    if uv:
        ways = {"uv": lambda: install_with_uv(str(uv)), **ways}
    STAMP.unlink(missing_ok=True)
    for name, way in ways.items():
        say(f"installing into .venv with {name}{' (a minute)' if name == 'pip' else ''} ...")
        started = time.monotonic()
        try:
            way()
        except Trouble as trouble:
            if name == "pip":
                raise
            say(f"uv failed, trying pip:\n{trouble}")
            continue
        STAMP.write_text(wanted_stamp(ROOT))
        UNFINISHED.unlink(missing_ok=True)
        say(f"installed in {time.monotonic() - started:.1f} s")
        return


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Over all terminals. Locks the project's folder, where the system can."""
    import fcntl

    folder = os.open(ROOT, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def ensure_installed() -> None:
    wanted = wanted_stamp(ROOT)
    if is_current(STAMP, wanted) and usable(VENV):
        return
    if not os.access(ROOT, os.W_OK):
        raise Trouble(
            f"{ROOT} is not yours to write in and has no .venv that you can use: work in a copy "
            "of your own"
        )
    with one_at_a_time():
        if not (is_current(STAMP, wanted) and usable(VENV)):
            install()


def ensure_extra(extra: str, module: str) -> None:
    """Installs an extra of the library that one command needs, unless its module is there."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    if subprocess.run([str(PYTHON), "-c", code], check=False).returncode == 0:
        return
    say(f"installing {module} ...")
    uv = shutil.which("uv")
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ways = [[uv, "pip", "install", "--quiet", "--python", str(PYTHON)], pip] if uv else [pip]
    for number, way in enumerate(ways, 1):
        try:
            return quietly(*way, "-c", "constraints.txt", "-e", f".[dev,{extra}]")
        except Trouble:
            if number == len(ways):
                raise


def install_bench() -> None:
    """What the curves of the benchmarks' report are drawn with; without it the report has none."""
    try:
        ensure_extra("bench", "matplotlib")
    except Trouble as trouble:
        say(f"no curves will be drawn:\n{trouble}")


def check() -> int:
    """Style and types; both run, also when the first fails."""
    commands = ([str(PYTHON), "-m", "ruff", "check", "."], [str(PYTHON), "-m", "mypy"])
    return max([subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands])


def audit(arguments: "list[str]") -> int:
    """0: no newer version fixes a known vulnerability. 1: one does. UNKNOWN: there was no network
    to find out."""
    # By OSV and not by the package index: a mirror of that knows no vulnerabilities, and answers
    # that there are none.
    command = [
        str(PYTHON),
        "-m",
        "pip_audit",
        "-r",
        "constraints.txt",
        "--no-deps",
        "--disable-pip",
        "-s",
        "osv",
    ]
    command += ["-f", "json", "--desc", "off", "--progress-spinner", "off", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        say("THE AUDIT WAS NOT DONE: no answer within five minutes")
        return UNKNOWN
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or ["no output"]
        say(f"THE AUDIT WAS NOT DONE: {said[-1]}")
        return UNKNOWN
    fixed = 0
    for one in found:
        for weakness in one.get("vulns", ()):
            versions = weakness["fix_versions"]
            fixed += bool(versions)
            fate = f"fixed in {versions[-1]}" if versions else "not fixed yet"
            say(f"{one['name']} {one['version']}: {weakness['id']}, {fate}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if skipped:
        say(f"not audited: {', '.join(skipped)}")
    say(
        f"{len(found) - len(skipped)} packages audited, {fixed} known vulnerabilities that an "
        "update fixes"
    )
    return 1 if fixed else 0 if len(skipped) < len(found) else UNKNOWN


def remake_constraints() -> int:
    uv = shutil.which("uv")
    if not uv:
        raise Trouble("constraints.txt is made with uv, which is not on PATH")
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.11",
        "--all-extras",
        "--no-header",
    ]
    command += ["--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--no-emit-package", "pgqueue-jobs", "pyproject.toml", "service/pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        text = (
            "# The versions that the tests ran with. Made by: python3 dev.py "
            f"constraints\n{done.stdout}"
        )
        (ROOT / "constraints.txt").write_text(text)
    return done.returncode


def become(*command: str) -> None:
    # exec, so that signals and exit codes are the program's own.
    sys.stdout.flush()
    os.execv(command[0], command)


def main(arguments: list[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if verb in ("help", "-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if verb == "constraints":
        return remake_constraints()
    if verb not in (
        "demo",
        "test",
        "up",
        "run",
        "check",
        "docs",
        "chaos",
        "mutants",
        "schema",
        "bench",
        "audit",
    ):
        print(f"dev.py: no command {verb!r}\n\n{(__doc__ or '').strip()}", file=sys.stderr)
        return 2
    ensure_installed()
    if verb == "check":
        return check()
    if verb == "audit":
        return audit(rest)
    if verb == "run":
        become(str(VENV / "bin" / "pgqueue"), *rest)
    os.chdir(ROOT)
    if verb == "demo":
        become(str(PYTHON), "-m", "pgqueue_service.demo", *rest)
    if verb == "chaos":
        become(str(PYTHON), "-m", "tests.chaos", *rest)
    if verb == "mutants":
        become(str(PYTHON), "-m", "tests.guards.mutants", *rest)
    if verb == "docs":
        ensure_extra("docs", "zensical")
        become(str(PYTHON), "docs/build.py")
    if verb == "schema":
        become(str(PYTHON), "-m", "tests.schema.dump", *rest)
    if verb == "bench":
        install_bench()
        become(str(PYTHON), "-m", "benchmarks", *rest)
    if verb == "up":
        become(str(VENV / "bin" / "pgqueue"), "dev", *rest)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # Tests wait for processes more than they compute: two for each core.
    become(str(PYTHON), "-m", "pytest", *pytest_arguments(rest, 2 * cores if cores > 1 else 1))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Trouble as trouble:
        say(str(trouble))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
