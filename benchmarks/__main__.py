"""The command line of the benchmarks."""

import argparse
import asyncio
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.plots import draw
from benchmarks.report import report
from benchmarks.run import Run
from benchmarks.server import Postgres
from pgqueue.errors import QueueError

FIGURES = {
    "bare": "p01_burn_down",
    "p1": "p01_burn_down",
    "p2": "p01_burn_down",
    "p3": "p03_pick_up",
    "p4": "p04_enqueue",
    "p5": "p05_http",
    "p6": "p06_mail",
    "p7": "p07_costs",
    "p8": "p08_growth",
    "p9": "p09_held_snapshot",
    "p10": "p10_idle",
    "peers": "peers.measure",
}
"""Word on the command line -> module with `measure(run, words)`. One module may take several
figures from the same rounds."""

RESULTS = Path(__file__).resolve().parent / "results"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 dev.py bench", description="Measures what pgqueue promises in figures."
    )
    parser.add_argument(
        "figures",
        nargs="*",
        metavar="FIGURE",
        help=f"of {', '.join(FIGURES)}; p: p1 to p10; none: all",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: whether it works, not what it is worth"
    )
    parser.add_argument(
        "--rounds", type=int, help="how often every side is measured (3; with --quick 1)"
    )
    parser.add_argument(
        "--postgres", type=int, metavar="MAJOR", help="the version of the server (the embedded one)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (benchmarks/results/TIME)"
    )
    parser.add_argument(
        "--within",
        type=Path,
        metavar="DIR",
        help="where the server keeps its data while it runs (TMPDIR)",
    )
    chosen = parser.parse_args(given)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    if "p" in chosen.figures:
        chosen.figures = [word for word in FIGURES if word[1:].isdigit() or word in chosen.figures]
    if unknown := [word for word in chosen.figures if word not in FIGURES]:
        parser.error(f"no figure {', '.join(unknown)}; there are: {', '.join(FIGURES)}")
    return chosen


async def measure(chosen: argparse.Namespace) -> Run:
    words = chosen.figures or [word for word in FIGURES if word != "bare"]
    out = chosen.out or RESULTS / time.strftime("%Y%m%d-%H%M%S")
    run = Run(Postgres(chosen.postgres, chosen.within), out.resolve(), chosen.quick, chosen.rounds)
    try:
        await run.postgres.start()
        run.say(run.postgres.version)
        for module in dict.fromkeys(FIGURES[word] for word in words):
            await import_module(f"benchmarks.{module}").measure(run, set(words))
    finally:
        run.postgres.stop()
    return run


def main() -> int:
    chosen = arguments(sys.argv[1:])
    try:
        run = asyncio.run(measure(chosen))
    except QueueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    run.out.mkdir(parents=True, exist_ok=True)
    drawn = draw(run.figures, run.out)
    if not drawn and any(figure.curves for figure in run.figures):
        run.say("no curves: matplotlib is not installed (pip install '.[bench]')")
    text = report(run, drawn)
    (run.out / "report.md").write_text(text)
    print(text)
    run.say(f"report: {run.out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
