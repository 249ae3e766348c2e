"""`python3 dev.py chaos [FAULTS] [OPTIONS]`: the faults at full size, and a report.

python3 dev.py chaos                all of them, one after the other: more than an hour
python3 dev.py chaos R1 R13         these
python3 dev.py chaos --size 0.1     a tenth of the way from the suite's size to the full one
python3 dev.py chaos --parts 2      two halves side by side, one report: where cores are idle
python3 dev.py chaos --shard 1/2    the first half of the tests, for one of two machines
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import report

NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit code of a part that got none: there were fewer tests than parts."""


def shard(text: str) -> str:
    """ "1/2", as it is given."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1/2: the first of two parts")
    return text


def count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 64")
    return int(text)


class Listener:
    """Hears how each test ended."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: dict[str, Any] = dict(report.user_properties)
        if not told.get("fault") or (report.when != "call" and report.passed):
            return
        self.results.append(
            {
                "fault": told["fault"],
                "test": report.nodeid,
                "outcome": _outcome(report),
                "seconds": round(report.duration, 1),
                "counts": told.get("counts"),
                "error": "\n".join(report.longreprtext.splitlines()[-20:])
                if report.failed
                else None,
            }
        )


def _outcome(report: pytest.TestReport) -> str:
    expected: str | None = getattr(report, "wasxfail", None)
    if expected is not None and report.skipped:
        return f"fails as expected: {expected}"
    return (
        f"skipped: {report.longrepr[2]}" if isinstance(report.longrepr, tuple) else report.outcome
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "dev.py chaos", description="Faults against real processes and a durable Postgres."
    )
    parser.add_argument(
        "faults",
        nargs="*",
        metavar="FAULT",
        help=f"{', '.join(report.FAULTS)}; all of them when none is named",
    )
    parser.add_argument(
        "--size", default="full", help="small, full, or a number between: 0 is small, 1 is full"
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="N/M",
        help="every M-th test from the N-th on: each part on its own machine",
    )
    parser.add_argument(
        "--parts",
        type=count,
        default=1,
        metavar="M",
        help="as many parts at a time, each in a process of its own",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/chaos"),
        metavar="DIR",
        help="where the report goes",
    )
    options = parser.parse_args(arguments)
    made = report.circumstances(["python3", "dev.py", "chaos", *arguments], options.size)
    if options.parts > 1:
        return _side_by_side(options, made)
    os.environ |= {
        "CHAOS": options.size,
        "CHAOS_FAULTS": " ".join(options.faults),
        "CHAOS_SHARD": options.shard,
    }
    listener = Listener()
    code = pytest.main(
        ["tests/chaos", "-v", "--timeout=7200", "-p", "no:cacheprovider"], plugins=[listener]
    )
    print(f"\n{report.write(options.out, report.finished(made), listener.results)}")
    return int(code)


def _side_by_side(options: argparse.Namespace, made: dict[str, Any]) -> int:
    """Each part prints into a file; the report is one. The exit code is the worst of them."""
    if options.shard != "1/1":
        raise SystemExit("--parts and --shard: choose one")
    with tempfile.TemporaryDirectory(prefix="pgqueue-chaos-") as folder:
        parts = [Path(folder) / str(number + 1) for number in range(options.parts)]
        running = []
        for number, part in enumerate(parts, 1):
            part.mkdir()
            command = [sys.executable, "-m", "tests.chaos", *options.faults]
            command += ["--size", options.size, "--shard", f"{number}/{options.parts}"]
            command += ["--out", str(part)]
            options.out.mkdir(parents=True, exist_ok=True)
            log = options.out / f"part-{number}.log"
            print(f"part {number} of {options.parts}: {log}", flush=True)
            with log.open("wb") as output:
                running.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        codes = [one.wait() for one in running]
        if not all(code == NO_TESTS for code in codes):
            codes = [0 if code == NO_TESTS else code for code in codes]
        page = report.write(options.out, report.finished(made), report.results_of(parts))
    print(f"\n{page}")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
