"""One run of benchmarks: its server and sizes, the turns that the sides of a comparison take, and
what came of it."""

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.server import Postgres

Sample = dict[str, Any]
Measure = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass
class Verdict:
    """One line of the table: what was wanted of a figure, and what it is. `met` is None where
    nothing was promised."""

    what: str
    wanted: str
    value: str
    met: bool | None = None


@dataclass
class Figure:
    """What came of one figure: verdicts, a table for people, curves to be drawn, and every
    sample."""

    key: str
    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Run:
    """What every figure is given."""

    postgres: Postgres
    out: Path
    quick: bool = False
    rounds: int = 3
    figures: list[Figure] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def size(self, full: int, quick: int) -> int:
        """A number of jobs: as promised, or one that is enough to see whether it works."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)

    async def take_turns(
        self, key: str, sides: Mapping[str, Measure], rounds: int | None = None
    ) -> dict[str, list[Sample]]:
        """Every side once in a round, each round beginning with another one: what the machine does
        besides meets all alike."""
        samples: dict[str, list[Sample]] = {name: [] for name in sides}
        names = list(sides)
        for turn in range(rounds or self.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                began = time.monotonic()
                sample = dict(await sides[name]())
                samples[name].append(
                    sample | {"round": turn + 1, "took": round(time.monotonic() - began, 3)}
                )
                self.say(f"{key} round {turn + 1}: {name}: {brief(sample)}")
        return samples

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        for verdict in figure.verdicts:
            mark = {True: "met", False: "MISSED", None: "-"}[verdict.met]
            self.say(
                f"{figure.key} {verdict.what}: {verdict.value} (wanted: {verdict.wanted}) {mark}"
            )
        self.save()

    def save(self) -> None:
        """After every figure, so that a run that breaks off leaves what it had."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "raw.json").write_text(json.dumps(self.document(), indent=1, default=str))

    def document(self) -> dict[str, Any]:
        return {
            "machine": machine(),
            "postgres": {"version": self.postgres.version, "settings": self.postgres.settings},
            "quick": self.quick,
            "rounds": self.rounds,
            "seconds": round(time.monotonic() - self.started, 1),
            "figures": [asdict(figure) for figure in self.figures],
        }


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = memory = ""
    if Path("/proc/cpuinfo").exists():
        names = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        cpu = f"{len(names)} x {names[0]}" if names else ""
        memory = Path("/proc/meminfo").read_text().splitlines()[0].partition(":")[2].strip()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu,
        "memory": memory,
        "when": time.strftime("%Y-%m-%d %H:%M %Z"),
    }


def median(samples: Sequence[Mapping[str, Any]], name: str = "per_second") -> float:
    return statistics.median(float(sample[name]) for sample in samples)


def ratio(
    samples: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    name: str = "per_second",
) -> float:
    """The median of the rounds' own ratios: within a round both sides had the same machine, over a
    run they may not."""
    pairs = zip(sorted(samples, key=_round), sorted(base, key=_round), strict=True)
    return statistics.median(float(sample[name]) / float(other[name]) for sample, other in pairs)


def _round(sample: Mapping[str, Any]) -> int:
    return int(sample["round"])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(samples: Sequence[Mapping[str, Any]], name: str = "per_second") -> str:
    """Lowest to highest."""
    values = sorted(float(sample[name]) for sample in samples)
    return f"{values[0]:,.0f} to {values[-1]:,.0f}"


def brief(sample: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,.5g}" for name, value in sample.items() if isinstance(value, int | float)
    )
