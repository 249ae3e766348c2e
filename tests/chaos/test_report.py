"""The report of a run: everything that was counted, and what failed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import report
from tests.support.places import ROOT

COUNTS: dict[str, Any] = {
    "settings": {"server_version": "18.6", "fsync": "on"},
    "what": "SIGKILL",
    "faults": 6,
    "jobs": 1710,
    "lost": 0,
    "doubled": 0,
    "stale_accepted": 0,
    "stale_refused": 3,
    "duplicate_starts": 42,
    "in_flight": 47,
    "recovery": 4.6,
    "figures": {"ended": {"completed": 1710}, "lease": 2},
}


def a_result(fault: str, test: str, **changes: Any) -> dict[str, Any]:
    told = {
        "fault": fault,
        "test": f"x.py::test_{test}",
        "outcome": "passed",
        "seconds": 1.5,
        "counts": COUNTS,
        "error": None,
    }
    return told | changes


def test_it_holds_every_count_and_where_it_was_made(tmp_path: Path) -> None:
    made = report.circumstances(["python3", "dev.py", "chaos", "R1"], "full")
    page = report.write(
        tmp_path, made, [a_result("R10", "late"), a_result("R1", "jobs_start_again")]
    ).read_text()
    assert "| R1: jobs start again | 1,710 | 6 | 0 | 0 | 0 | 3 | 42 | 47 | 4.6 | passed |" in page
    assert "**R1, jobs start again** (passed, 1.5 s). SIGKILL" in page
    assert "- ended: completed 1,710" in page
    assert all(
        f"- {name}: " in page for name in ("command", "commit", "python", "psycopg", "cores")
    )
    assert "server_version 18.6, fsync on" in page
    assert page.index("| R1: ") < page.index("| R10: ")
    assert "### R1: workers killed\n" in page
    kept = json.loads((tmp_path / "chaos.json").read_text())
    assert kept["made"]["command"] == "python3 dev.py chaos R1"
    assert kept["results"][0]["counts"] == COUNTS


def test_what_failed_before_it_could_count_is_in_it_with_its_reason(tmp_path: Path) -> None:
    failed = a_result(
        "R3", "it_comes_back", outcome="failed", counts=None, error="E  AssertionError: gone"
    )
    page = report.write(tmp_path, {"command": "c"}, [failed]).read_text()
    assert page.count("failed") == 2
    assert "E  AssertionError: gone" in page


def test_every_fault_of_the_suite_has_a_heading() -> None:
    """And every heading a fault."""
    marks = re.compile(r"@pytest\.mark\.fault\(\"(R\d+)\"\)")
    files = Path(__file__).parent.glob("test_*.py")
    assert {fault for file in files for fault in marks.findall(file.read_text())} == set(
        report.FAULTS
    )


def test_the_reports_of_several_parts_become_one(tmp_path: Path) -> None:
    for name, fault in (("1", "R2"), ("2", "R1")):
        report.write(tmp_path / name, {"command": name}, [a_result(fault, "in_part_" + name)])
    results = report.results_of([tmp_path / "1", tmp_path / "2"])
    page = report.write(tmp_path, {"command": "both"}, results).read_text()
    assert page.index("R1: in part 2") < page.index("R2: in part 1")


def test_parts_side_by_side_make_one_report_and_say_when_there_was_nothing_to_run(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.chaos", "R0", "--size", "small", "--parts", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    kept = json.loads((tmp_path / "chaos.json").read_text())
    assert kept["results"] == []
    assert kept["made"]["finished"]
    assert {path.name for path in tmp_path.glob("*.log")} == {"part-1.log", "part-2.log"}
