"""The report of a run, in Markdown."""

from typing import Any

from benchmarks.run import Figure, Run, machine

MARK = {True: "met", False: "**missed**", None: ""}


def table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + [
        "| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows
    ]


def section(figure: Figure, drawn: bool) -> list[str]:
    lines = [f"## {figure.key}. {figure.title}", ""]
    lines += [*table(figure.rows), ""] if figure.rows else []
    lines += [
        f"- {verdict.what}: {verdict.value}; wanted: {verdict.wanted}"
        for verdict in figure.verdicts
    ]
    lines += [f"- {note}" for note in figure.notes]
    if drawn and figure.curves:
        lines += ["", *(f"![{curve['title']}]({curve['name']}.png)" for curve in figure.curves)]
    return [*lines, ""]


def report(run: Run, drawn: bool) -> str:
    """The whole of it; `drawn` says whether the curves lie beside it."""
    verdicts = [
        {
            "figure": figure.key,
            "what": one.what,
            "wanted": one.wanted,
            "value": one.value,
            "": MARK[one.met],
        }
        for figure in run.figures
        for one in figure.verdicts
    ]
    size = "; QUICK sizes, not for conclusions" if run.quick else ""
    settings = ", ".join(f"`{name} = {value}`" for name, value in run.postgres.settings.items())
    lines = [
        "# pgqueue in figures",
        "",
        *(f"- {name}: {value}" for name, value in machine().items()),
        f"- Postgres: {run.postgres.version}",
        f"- its settings: {settings}",
        (
            f"- rounds: {run.rounds}, sides in turn; rates are medians, ratios the median of the "
            f"rounds' own{size}"
        ),
        "- every sample: `raw.json`, beside this file",
        "",
        *table(verdicts),
        "",
    ]
    for figure in run.figures:
        lines += section(figure, drawn)
    return "\n".join(lines)
