"""Standard streams that a supervisor closed: what is opened next would get their numbers."""

import os
import sys


def open_closed_streams() -> None:
    """Opens the null device as each of stdin, stdout and stderr that is closed. Else a connection
    to the database would become standard error, and what is said there would be sent to the
    server."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is the one that a new file gets.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
