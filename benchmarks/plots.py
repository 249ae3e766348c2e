"""The curves of a run as PNG files, with matplotlib where it is installed (extra `bench`)."""

from pathlib import Path
from typing import Any

from benchmarks.run import Figure


def draw(figures: list[Figure], out: Path) -> bool:
    """Draws every curve into `out`. False when matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    for figure in figures:
        for curve in figure.curves:
            _draw(curve, out / f"{curve['name']}.png")
    return True


def _draw(curve: dict[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, points in curve["lines"].items():
        axes.plot(
            [x for x, _ in points], [y for _, y in points], marker="o", markersize=4, label=name
        )
    places = sorted({x for points in curve["lines"].values() for x, _ in points})
    if curve.get("log"):
        axes.set_xscale("log")
    if len(places) <= 6:
        axes.set_xticks(places)
        axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(title=curve["title"], xlabel=curve["x"], ylabel=curve["y"])
    axes.grid(alpha=0.3)
    axes.legend()
    drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
