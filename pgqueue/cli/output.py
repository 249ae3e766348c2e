"""Printing: tables for people on a terminal, aligned text for pipes, JSON for programs. Nothing
here lets a stored text move the cursor."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
import msgspec

from pgqueue.job import JobView
from pgqueue.masking import mask
from pgqueue.printable import safe as safe
from pgqueue.printable import safe_json


def moment(value: datetime | None) -> str:
    """A time for people: UTC, to the second."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def span(seconds: float | Decimal | None) -> str:
    """A length of time for people: 12ms, 3.4s, 5m, 2.0h, 3.1d."""
    if seconds is None:
        return "-"
    value = float(seconds)
    if value < 1:
        return f"{value * 1000:.0f}ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.1f}s"


def cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return moment(value)
        case timedelta():
            return span(value.total_seconds())
        case float() | Decimal():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(cell(one) for one in value) or "-"
        case dict():
            return ", ".join(f"{key}:{cell(one)}" for key, one in value.items()) or "-"
    return safe(value)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    nothing: str,
    *,
    long: Iterable[str] = (),
) -> None:
    """Prints rows; `columns` maps a key of the row to its heading. `long` columns may break over
    lines, where there are lines."""
    if not rows:
        click.echo(nothing)
        return
    cells = [[cell(row.get(key)) for key in columns] for row in rows]
    if on_terminal():
        _rich_table(list(columns.values()), cells, [key in set(long) for key in columns])
        return
    _aligned([list(columns.values()), *cells])


def entries(
    rows: Sequence[Mapping[str, Any]], title: str, details: Sequence[str], nothing: str
) -> None:
    """Prints rows whose titles are as long as a line, on a terminal: the title alone, to be copied,
    and a line of details."""
    width = shutil.get_terminal_size().columns
    for row in rows:
        click.secho(cell(row[title]), bold=True)
        text = "  " + "  ".join(cell(row[key]) for key in details)
        click.echo(text if len(text) <= width else text[: width - 1] + "…")
    if not rows:
        click.echo(nothing)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints names with their values."""
    rows = [[name, cell(value)] for name, value in pairs]
    if on_terminal():
        _rich_table(None, rows, [False, True])
    else:
        _aligned(rows)


def _aligned(rows: list[list[str]]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def _rich_table(headings: list[str] | None, rows: list[list[str]], long: list[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=SIMPLE_HEAD if headings else None,
        show_header=headings is not None,
        pad_edge=False,
        header_style="bold",
    )
    for index, breaks in enumerate(long):
        heading = headings[index] if headings else ""
        grid.add_column(heading, overflow="fold" if breaks else "ellipsis", no_wrap=not breaks)
    for row in rows:
        # Text, and not str: what is stored is no markup.
        grid.add_row(*(Text(text) for text in row))
    Console(file=sys.stdout, highlight=False, markup=False, emoji=False).print(grid)


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its members named as the HTTP interface names them."""
    return {camel(key): value for key, value in row.items()}


def job_document(view: JobView, *, payload: bool) -> dict[str, Any]:
    """A job for a program. What went wrong shows no whole address; without `payload` neither do
    payload and history."""
    document = public(msgspec.structs.asdict(view)) | {
        "error": masked(view.error),
        "stackTrace": masked(view.stack_trace),
        "progressNote": masked(view.progress_note),
        "receipt": masked(view.receipt),
        "history": [
            {name: one if name == "payload" else masked(one) for name, one in entry.items()}
            for entry in view.history
        ],
    }
    if not payload:
        document |= {"payload": masked(view.payload), "history": masked(view.history)}
    return document


def masked(value: Any) -> Any:
    """The same JSON value without a whole e-mail address."""
    match value:
        case str():
            return mask(value)
        case list():
            return [masked(one) for one in value]
        case dict():
            return {mask(key): masked(one) for key, one in value.items()}
    return value


def as_json(value: Any) -> bytes:
    """One line of JSON; times as YYYY-MM-DDTHH:MM:SS.mmmZ, lengths of time in seconds."""
    return safe_json(msgspec.json.encode(_plain(value)).decode()).encode()


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(msgspec.json.format(as_json(value), indent=2).decode())


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case UUID():
            return str(value)
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return value
