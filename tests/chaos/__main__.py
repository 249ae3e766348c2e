"""`python3 dev.py chaos [FAULTS] [--size SIZE] [--shard N/M] [--out DIR]`: the faults at full size,
and a report.

python3 dev.py chaos                    all of them, one after the other: hours python3 dev.py chaos
R1 R13             these python3 dev.py chaos --size 0.1         a tenth of the way from the size of
the ordinary tests to the full one python3 dev.py chaos --shard 1/2        the first half of the
tests, for one of two machines
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import report


def shard(text: str) -> str:
    """ "1/2", as it is given."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1/2: the first of two parts")
    return text


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
        "--out",
        type=Path,
        default=Path("benchmarks/chaos"),
        metavar="DIR",
        help="where the report goes",
    )
    options = parser.parse_args(arguments)
    os.environ |= {
        "CHAOS": options.size,
        "CHAOS_FAULTS": " ".join(options.faults),
        "CHAOS_SHARD": options.shard,
    }
    listener = Listener()
    code = pytest.main(
        ["tests/chaos", "-v", "--timeout=7200", "-p", "no:cacheprovider"], plugins=[listener]
    )
    made = report.circumstances(["python3", "dev.py", "chaos", *arguments], options.size)
    print(f"\n{report.write(options.out, made, listener.results)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
