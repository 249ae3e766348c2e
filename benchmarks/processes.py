"""Processor time and memory of processes, from /proc; zero where there is none."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """Of a process, its living children, and those it has waited for."""
    total = 0
    if fields := _fields(pid):
        # utime, stime, cutime, cstime; counted from the state, which is the field behind the name.
        total += sum(int(value) for value in fields[11:15])
    return total / TICK + sum(cpu_seconds(child) for child in children(pid))


def memory_bytes(pid: int) -> int:
    """Resident memory of the process alone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
