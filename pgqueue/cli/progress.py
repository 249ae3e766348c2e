"""Long work: a bar on a terminal, a line now and then elsewhere. Both on stderr, so that what is
printed stays clean."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

EVERY = 5.0
"""Seconds between two plain lines."""

Tell = Callable[[int], None]


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Tell]:
    """Yield a function that takes how much is done by now. `total` is None when it is unknown."""
    if sys.stderr.isatty():
        with _bar(what, total) as tell:
            yield tell
    else:
        with _lines(what, total) as tell:
            yield tell


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _lines(what: str, total: int | None) -> Iterator[Tell]:
    last = time.monotonic()
    said = 0

    def tell(done: int) -> None:
        nonlocal last, said
        if time.monotonic() - last >= EVERY and done != said:
            last, said = time.monotonic(), done
            click.echo(f"{what}: {done}{'' if total is None else f' of {total}'}", err=True)

    yield tell
