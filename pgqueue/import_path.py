"""The first thing that is imported: where Python looks for modules when it runs `python -m
pgqueue.worker`."""

import os
import sys

_PROGRAMS = ("pgqueue.worker", "pgqueue.cli")


def working_directory_last() -> None:
    """Modules of the application are found in the working directory, after those of Python and of
    what is installed: a file called logging.py or psycopg.py there is not taken for the
    library's."""
    here = os.getcwd()
    if sys.path and sys.path[0] in ("", here) and (_by_m() or sys.path[0] == ""):
        del sys.path[0]
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _by_m() -> bool:
    """Whether Python itself put the working directory first, for one of our programs (`-m NAME`,
    `-mNAME`)."""
    return any(one.removeprefix("-m") in _PROGRAMS for one in sys.orig_argv[1:6])


if sys.argv[:1] == ["-m"] and _by_m():
    working_directory_last()
