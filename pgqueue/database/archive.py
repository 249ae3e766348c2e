"""The archive of `pgqueue prune`: one file of JSON lines a month, on the disk before the rows are
gone."""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pgqueue.errors import ArchiveError

Line = tuple[str, bytes]
"""The month that a row was made in (2026-11), and the row as JSON."""

PIECE = 1 << 16


def append(folder: Path, lines: Iterable[Line]) -> None:
    """Writes the lines to the files of their months and waits until they, and the files' names, are
    on the disk. Raises ArchiveError; the file that could not be written is then as long as
    before."""
    months: dict[str, list[bytes]] = {}
    for month, line in lines:
        months.setdefault(month, []).append(line + b"\n")
    try:
        make(folder)
        for month, some in months.items():
            _append(folder / f"job_logs-{month}.jsonl", b"".join(some))
    except OSError as error:
        raise ArchiveError(
            f"the archive cannot be written: {error.strerror or error} "
            f"({error.filename or folder}). Rows are removed only when "
            "they are in it, so none is lost: make it writable, then run it again"
        ) from error


def make(folder: Path) -> None:
    """The folder, and its name on the disk. Raises OSError."""
    if folder.is_dir():
        return
    make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _append(path: Path, text: bytes) -> None:
    new = not path.exists()
    # Payloads are personal data: only the owner reads the file.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # Another run may be in the middle of a line, which must not be taken for a torn one.
        fcntl.flock(file, fcntl.LOCK_EX)
        _end_last_line(file)
        end = os.fstat(file).st_size
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)
    if new:
        _sync(path.parent)


def _end_last_line(file: int) -> None:
    """Cuts off a line without its end. A run that was killed, or a full disk, left it there; its
    row was not removed."""
    size = os.fstat(file).st_size
    start, last = size, b""
    while start and b"\n" not in last:
        start = max(0, start - PIECE)
        last = os.pread(file, size - start, start)
    torn = last[last.rfind(b"\n") + 1 :]
    if not torn:
        return
    try:
        # A whole line to which only the newline is missing: a person has edited the file.
        msgspec.json.decode(torn, type=dict)
        os.write(file, b"\n")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        os.ftruncate(file, size - len(torn))


def _sync(folder: Path) -> None:
    """A new name is on the disk when its folder is."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
