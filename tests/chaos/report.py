"""A run of the faults as Markdown, for people, and as JSON, for comparison."""

import itertools
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT

COLUMNS = {
    "jobs": "jobs",
    "faults": "faults",
    "lost": "lost",
    "doubled": "doubled",
    "stale_accepted": "stale writes taken",
    "stale_refused": "stale writes refused",
    "duplicate_starts": "started twice",
    "in_flight": "in flight",
    "recovery": "recovery (s)",
}

FAULTS = {
    "R1": "workers killed",
    "R2": "workers, or Postgres, frozen",
    "R3": "Postgres restarted",
    "R4": "connections cut at any moment",
    "R5": "a network that swallows everything",
    "R6": "a failover to a standby",
    "R7": "a job that kills its process",
    "R8": "the same ids from many producers",
    "R9": "the edge of a limit's window",
    "R11": "clocks of workers that are wrong",
    "R12": "workers replaced one after the other",
    "R13": "a mail server that is down",
    "R14": "a pooler in between",
    "R16": "cursors, slow commits, blocked and full queues",
    "R17": "everything at once over the same rows",
    "R18": "every connection ended at once",
    "R19": "hostile texts, spoiled rows, odd endings",
    "R20": "a mail server that refuses",
    "R23": "full disks, held locks, a clock of the database that is set",
}
"""Those of the suite."""

INTRODUCTION = """\
The result of each fault, counted by a ledger that the queue cannot change. Producers append the id
of every answered enqueue to a file of their own, handlers write their effects to another, and
triggers of the superuser record every start and end that the database accepted, with the login that
made it. Workers and producers are processes with the rights of `sql/roles.sql`. Every fault has a
Postgres of its own.

No job may be *lost* (accepted and not ended, or completed without its handler) or *doubled*
(completed twice), and no write may be accepted from a process that does not hold the job. No more
jobs may be *started twice* than were *in flight* when the faults struck.
"""


def circumstances(command: list[str], size: str) -> dict[str, Any]:
    """Where and with what it ran."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": " ".join(command),
        "size": size,
        "finished": None,
        "commit": commit.stdout.strip() or None,
        "pgqueue": version("pgqueue-jobs"),
        "python": platform.python_version(),
        "psycopg": version("psycopg"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def finished(made: dict[str, Any]) -> dict[str, Any]:
    return made | {"finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def results_of(folders: list[Path]) -> list[dict[str, Any]]:
    """The results of several reports. A part that ended before its report raises OSError."""
    return [
        one
        for folder in folders
        for one in json.loads((folder / "chaos.json").read_text())["results"]
    ]


def write(folder: Path, made: dict[str, Any], results: list[dict[str, Any]]) -> Path:
    """chaos.json and chaos.md in that folder; the latter's path."""
    folder.mkdir(parents=True, exist_ok=True)
    results = sorted(
        results, key=lambda one: (int(one["fault"].removeprefix("R") or 0), one["test"])
    )
    (folder / "chaos.json").write_text(
        json.dumps({"made": made, "results": results}, indent=2, default=str) + "\n"
    )
    page = folder / "chaos.md"
    page.write_text(markdown(made, results))
    return page


def markdown(made: dict[str, Any], results: list[dict[str, Any]]) -> str:
    settings = next((one["counts"]["settings"] for one in results if one["counts"]), {})
    parts = ["# Faults", "", INTRODUCTION]
    parts += [f"- {name}: {value}" for name, value in made.items()]
    parts += [f"- Postgres: {', '.join(f'{name} {value}' for name, value in settings.items())}", ""]
    parts += [f"| | {' | '.join(COLUMNS.values())} | |", f"|---|{'---|' * len(COLUMNS)}---|"]
    parts += [_row(one) for one in results]
    parts += ["", "## What was done, and what else was counted", ""]
    for fault, tests in itertools.groupby(results, key=lambda one: str(one["fault"])):
        parts += [f"### {fault}: {FAULTS.get(fault, 'another fault')}", ""]
        parts += [line for one in tests for line in _details(one)]
    return "\n".join(parts) + "\n"


def _row(one: dict[str, Any]) -> str:
    counts = one["counts"] or {}
    cells = ["" if counts.get(name) is None else f"{counts[name]:,}" for name in COLUMNS]
    return f"| {one['fault']}: {_sentence(one)} | {' | '.join(cells)} | {one['outcome']} |"


def _sentence(one: dict[str, Any]) -> str:
    return str(one["test"]).rpartition("::test_")[2].replace("_", " ")


def _details(one: dict[str, Any]) -> list[str]:
    counts = one["counts"] or {"what": "", "figures": {}}
    lines = [
        (
            f"**{one['fault']}, {_sentence(one)}** ({one['outcome']}, {one['seconds']} s). "
            f"{counts['what']}"
        ),
        "",
    ]
    lines += [
        f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in counts["figures"].items()
    ]
    if one["error"]:
        lines += ["", "```", one["error"], "```"]
    return [*lines, ""]


def _shown(value: Any) -> str:
    return (
        ", ".join(f"{key} {count:,}" for key, count in value.items())
        if isinstance(value, dict)
        else str(value)
    )
