"""For every Python process that the tests start: what it writes to standard error is written to a
file as well, which the tests read (tests/support/logged.py). On PYTHONPATH while the tests run;
Python imports a module of this name by itself."""

import os
import sys
from typing import Any


class Copied:
    """A stream whose text goes to a file too, and to it first: whoever has read the one finds it in
    the other."""

    def __init__(self, stream: Any, copy: int) -> None:
        self._stream = stream
        self._copy = copy

    def write(self, text: str) -> int:
        os.write(self._copy, text.encode(errors="backslashreplace"))
        written: int = self._stream.write(text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


folder = os.environ.get("TESTS_OVERHEARD")
if folder and sys.stderr is not None:
    try:
        file = os.path.join(folder, f"{os.getpid()}.log")
        sys.stderr = Copied(
            sys.stderr, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        )
    except OSError:
        folder = None  # the session that would have read it is over
