"""Writes log lines so that a reader who has stopped reading does not stop the process."""

import atexit
import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from typing import TextIO

from pgqueue.printable import safe

PIPE = 4096
"""Bytes that a pipe takes in one piece, once it says that it takes any."""

MOST = 4 << 20
"""Bytes that wait for a reader. What comes then is dropped, and counted."""

LAST_WORDS = 2.0
"""Seconds that the reader has at the end of the process."""


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be written is left out, and not shown raw as logging would."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(
                f"a line of {safe(record.name)} could not be logged ({type(error).__name__})\n"
            )


class PatientHandler(LineHandler):
    """Writes to a descriptor as long as it takes what it is given; else a thread waits for that,
    and lines queue up in order."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._descriptor = stream.fileno()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._writer: threading.Thread | None = None
        # Not the handler's own lock: the end of the process holds that one while it waits.
        self._turn = threading.Lock()
        atexit.register(self.flush)
        os.register_at_fork(after_in_child=self._in_child)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="replace")
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)
            return
        with self._turn:
            if not self._waiting:
                line = self._write_some(line)
            if line:
                self._keep(line)

    def _write_some(self, line: bytes) -> bytes:
        """Writes what can be written at once; the rest of the line."""
        with contextlib.suppress(OSError):
            while line and self._writable(0):
                line = line[os.write(self._descriptor, line[:PIPE]) :]
            return line
        return b""  # there is no reader any more

    def _writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def _keep(self, line: bytes) -> None:
        if self._size + len(line) > MOST:
            self._dropped += 1
            return
        self._waiting.append(line)
        self._size += len(line)
        if self._writer is None or not self._writer.is_alive():
            self._writer = threading.Thread(target=self._write_on, name="log", daemon=True)
            self._writer.start()

    def _write_on(self) -> None:
        """Until nothing waits. What waits is taken away only when it is written, so that nothing
        overtakes it."""
        while True:
            with contextlib.suppress(OSError):
                while not self._writable(1.0):
                    pass
            with self._turn:
                line = self._waiting[0]
                rest = self._write_some(line)
                self._size -= len(line) - len(rest)
                if rest:
                    self._waiting[0] = rest
                    continue
                self._waiting.popleft()
                if not self._waiting and not self._tell_dropped():
                    self._writer = None
                    return

    def _tell_dropped(self) -> bool:
        if not self._dropped:
            return False
        count, self._dropped = self._dropped, 0
        text = f"{count} log lines were dropped: nothing read them"
        record = logging.LogRecord("pgqueue.log", logging.WARNING, __file__, 0, text, (), None)
        line = f"{self.format(record)}\n".encode()
        self._waiting.append(line)
        self._size += len(line)
        return True

    def flush(self) -> None:
        """Waits for the reader, but not for long. While the process runs there is nothing to wait
        for."""
        writer = self._writer
        if writer is None or threading.current_thread() is writer:
            return
        deadline = time.monotonic() + LAST_WORDS
        while self._waiting and time.monotonic() < deadline:
            writer.join(0.01)

    def _in_child(self) -> None:
        self._turn = threading.Lock()
        self._waiting.clear()
        self._size, self._writer = 0, None


def handler_for(stream: TextIO) -> logging.Handler:
    """A handler for a stream; one that is no descriptor cannot stand still either."""
    try:
        return PatientHandler(stream)
    except (OSError, ValueError):
        return LineHandler(stream)
