"""That what is logged is read, and that saying too much fails a test."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pgqueue_service.settings import ServiceSettings

from tests.support.logged import Ears, leaks
from tests.support.places import ROOT

ADDRESS = "ana.maria" + "@" + "example.com"


@pytest.mark.parametrize(
    "line",
    [
        f"sent to {ADDRESS}",
        f'{{"email":"{ADDRESS}"}}',
        "GET /api/jobs/ana.maria%40example.com",
        "ана.мария" + "@" + "жишээ.мон",
        "o'brien" + "@" + "mail.example.co.uk",
        "postgresql://bob:" + "hunter2@db/x",
        "host=db password=" + "hunter2",
        "Authorization: Bearer " + "an-unknown-token",
        "the key is a-known-secret",
    ],
)
def test_what_says_too_much(line: str) -> None:
    assert leaks(f"fine\n{line}\nfine", {"a-known-secret"}) == [line]


@pytest.mark.parametrize(
    "line",
    ["sent to a***@example.com", "to=***@example.com", "***%40example.com",
     "postgresql://bob:***@db/x", "password=*** x",
     "password='***'", "Bearer ***", "the bearer of this", "@task", "a @ b.c", "user@host", ""],
)  # fmt: skip
def test_what_does_not(line: str) -> None:
    assert leaks(line, {"a-known-secret"}) == []


def test_secrets_of_any_settings_are_known(ears: Ears) -> None:
    ServiceSettings(
        database_url="postgresql://u:only-here-1@h/x",
        api_tokens=("short", "only-here-2"),
        sendgrid_api_key="only-here-3",
    )
    assert ears.secrets >= {"only-here-1", "only-here-2", "only-here-3"}
    assert "short" not in ears.secrets


def test_all_levels_of_ours_are_read_and_libraries_are_as_quiet_as_in_a_process(ears: Ears) -> None:
    ears.reader.taken()
    logging.getLogger("pgqueue_service.anything").debug("one")
    logging.getLogger("httpx").info("two")
    assert [line.split(" ", 1)[1] for line in ears.reader.taken().splitlines()[1::2]] == [
        "debug: one"
    ]


def test_processes_are_overheard_and_their_children(ears: Ears) -> None:
    child = "import sys; sys.stderr.write('from its child\\n')"
    code = (
        "import subprocess, sys; sys.stderr.write('from the parent\\n'); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["from the parent", "from its child"]
    assert set(ears.overheard.taken().split("\n")) >= {"from the parent", "from its child"}


INNER = """
import logging, subprocess, sys

def test_quiet():
    logging.getLogger("pgqueue").info("sent to %s", ADDRESS)

def test_a_line_of_this_process(monkeypatch):
    monkeypatch.setattr("pgqueue.logs.mask", str)
    logging.getLogger("pgqueue").debug("sent to %s", ADDRESS)

def test_a_line_of_another():
    program = f"import sys; print('sent to', {ADDRESS!r}, file=sys.stderr)"
    subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
"""


@pytest.mark.parametrize("processes", [[], ["-n", "1"]], ids=["in one process", "by xdist"])
def test_a_test_in_which_too_much_is_said_fails_and_the_session_with_it(
    tmp_path: Path, processes: list[str]
) -> None:
    (tmp_path / "test_inner.py").write_text(f"ADDRESS = {ADDRESS!r}\n{INNER}")
    (tmp_path / "pytest.ini").write_text("[pytest]")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.logged",
        "-p",
        "no:cacheprovider",
        "--color=no",
        *processes,
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "3 passed, 2 errors" in done.stdout
    for name in ("test_a_line_of_this_process", "test_a_line_of_another"):
        assert f"ERROR at teardown of {name}" in done.stdout
    assert "logged, with a whole address or a secret in it" in done.stdout
