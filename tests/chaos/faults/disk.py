"""A small disk that can be full: a memory file system of its own, so that nobody else's fills."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgqueue.embedded.unprivileged import server_identity

CHUNK = b"\0" * 65536


class Disk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """To the last byte, but for so many."""
        with self._ballast.open("ab", buffering=0) as file:
            while (room := shutil.disk_usage(self.folder).free - leave) > 0:
                try:
                    file.write(CHUNK[: min(room, len(CHUNK))])
                except OSError:  # another process took the rest
                    return

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def a_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mounted at `folder`, the server's own; the test is skipped where that may not be."""
    folder.mkdir()
    who = server_identity()
    owner = f",uid={who.uid},gid={who.gid}" if who else ""
    options = f"size={megabytes}m,mode=0700{owner}"
    command = ["mount", "-t", "tmpfs", "-o", options, "pgqueue-tests", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("only root, where it may mount file systems, has a disk that can be filled")
    try:
        yield Disk(folder)
    finally:
        # Lazily: a process that still holds a file there must not keep it for ever.
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
