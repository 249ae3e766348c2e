"""Ends a server of ours when we end, even by SIGKILL."""

import contextlib
import subprocess
from pathlib import Path

_SCRIPT = """
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ] && [ "$(head -n 1 "$1/data/postmaster.pid")" = "$pid" ]; then
    kill -QUIT "$pid"
    for i in 0 1 2 3 4 5 6 7 8 9; do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.5; done
fi
[ "$2" = keep ] || rm -rf "$1"
"""


class Watcher:
    """A shell that reads the server's pid from a pipe that only this process writes to: the pipe
    ends when this process ends, by any signal.

    Then it ends the server of that pid and, unless told to keep it, removes the folder.
    """

    def __init__(self, home: Path, *, keep: bool) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "pgqueue-watcher", str(home), "keep" if keep else "remove"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def tell(self, pid: int | None) -> None:
        """The server that runs now, or None."""
        if self._shell.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._shell.stdin.write(f"{'' if pid is None else pid}\n".encode())
                self._shell.stdin.flush()

    def close(self) -> None:
        """Nothing is left to watch."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin:
            self._shell.stdin.close()
