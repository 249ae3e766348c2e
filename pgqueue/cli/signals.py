"""SIGTERM and SIGINT of a process that runs on: handled from its first line on, also while it
imports modules, starts and runs jobs."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The first signal asks for an orderly end, which may take `patience` seconds; the second ends
    the process at once."""

    def __init__(self) -> None:
        self._asked = 0
        self._begin: Callable[[], None] | None = None
        self._say: Callable[[str], None] = _say
        self._patience = 0.0
        self._wakeup: int | None = None
        """The descriptor by which the event loop hears of signals; -1 when it needs none."""

    def install(self) -> None:
        """As the first process of a container there is no default action: without a handler a
        signal is lost."""
        for number in STOPPING:
            signal.signal(number, self)

    def keep(self) -> bool:
        """Puts back what a handler of the application took away; whether there was something to put
        back."""
        taken = any(signal.getsignal(number) is not self for number in STOPPING)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(STOPPING)
        wakeup = signal.set_wakeup_fd(
            -1 if self._wakeup is None else self._wakeup, warn_on_full_buffer=False
        )
        if self._wakeup is None:
            self._wakeup = wakeup
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        elif wakeup != self._wakeup:
            taken = True
        if taken:
            self.install()
        if blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        return taken or bool(blocked)

    def ready(
        self, begin: Callable[[], None], deadlines: float, say: Callable[[str], None]
    ) -> None:
        """From now on a signal calls `begin`. Until now it ended the process: it had nothing to
        give back."""
        self._patience, self._say, self._begin = deadlines, say, begin

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if self._begin is None:
            os._exit(0)
        if self._asked > 1:
            self._leave("stopped at once by a second signal")
        threading.Thread(target=self._insist, name="stop", daemon=True).start()
        self._begin()

    def _insist(self) -> None:
        time.sleep(self._patience)
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        where = f"{main.f_code.co_filename}:{main.f_lineno}" if main else "an unknown line"
        self._leave(f"did not end within {self._patience:g} s and is stopped; it stands at {where}")

    def _leave(self, why: str) -> None:
        with contextlib.suppress(Exception):
            self._say(why)
        os._exit(1)


def _say(why: str) -> None:
    os.write(2, f"pgqueue: {why}\n".encode())
