"""Everything that is logged while the tests run is read: no whole address, no token, no password of
a database in it.

After every test: the lines of this process, down to debug and as they are written for programs and
for people; what commands in this process said on standard error; and what the processes that the
test started wrote there. A test in which one of them says too much fails at its end. At the end of
all: the log of Postgres, which with its own defaults shows statements that failed.
"""

import dataclasses
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pgqueue_service.settings import ServiceSettings

from pgqueue.logs import HumanFormatter, JsonFormatter, configure_logging
from pgqueue.settings import Settings

ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+(?:@|%40)(?:[\w-]+\.)+[^\W\d_]{2,}")
"""Not the pattern with which the product masks: what that one misses is to be found."""

MASKED = re.compile(r"(\*\*\*|^\*{1,2})(@|%40)")
PASSWORD = re.compile(
    r"\w://[^\s:/@]*:(?!\*\*\*@)[^\s@/]+@|password=(?!\\?'?\*\*\*)\\?'?[^\s'\"\\…]"
)
BEARER = re.compile(r"(?i)\bbearer (?!\*\*\*)[\w.~+/-]{8,}")
EXAMPLE = "postgresql://user:password@host/database"
"""What a sentence about DATABASE_URL shows."""

SHORTEST = 8
"""Characters of a secret that is looked for: "t" is a token in some tests, and in most lines."""


SAID: list[str] = []
"""What commands that ran in this process wrote to standard error."""


class Reader(logging.Handler):
    """Keeps every line that it is given, once as JSON and once for people."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._formatters = (JsonFormatter(), HumanFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [formatter.format(record) for formatter in self._formatters]

    def taken(self) -> str:
        taken, self.lines = self.lines, []
        return "\n".join(taken)


class Overheard:
    """The standard error of all processes that were started, read as it grows."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pgqueue-overheard-"))
        self.folder.chmod(0o1777)  # servers run as nobody, and Python may be among what they start
        self._read: dict[Path, int] = {}

    def taken(self) -> str:
        texts = []
        for path in sorted(self.folder.iterdir()):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                new = file.read()
            self._read[path] = self._read.get(path, 0) + len(new)
            texts.append(new.decode(errors="replace"))
        return "\n".join(texts)


class Ears:
    """What a session of tests listens with. `secrets` are those that the Settings of
    the running test held."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.overheard = Overheard()
        self.secrets: set[str] = set()

    def listen(self) -> None:
        """Levels as with PGQUEUE_LOG_LEVEL=debug, and the reader beside the handlers that are
        there."""
        root = logging.getLogger()
        others = [handler for handler in root.handlers if handler is not self.reader]
        configure_logging("debug", quiet=ServiceSettings.quiet_loggers)
        root.handlers[:] = [*others, self.reader]

    def learn(self, settings: Settings) -> None:
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name) if field.metadata.get("secret") else None
            for text in value if isinstance(value, tuple) else (value or "",):
                self.secrets.update(
                    part for part in (text, _password_of(text)) if len(part) >= SHORTEST
                )

    def leaks(self) -> list[str]:
        """The lines since the last call that say too much."""
        said = "\n".join([self.reader.taken(), *SAID, self.overheard.taken()])
        SAID.clear()
        return leaks(said, self.secrets)


def leaks(text: str, secrets: set[str]) -> list[str]:
    """The lines in which a whole address, a secret, or the password of a URL stands."""

    def says_too_much(line: str) -> bool:
        return (
            any(not MASKED.search(found[0]) for found in ADDRESS.finditer(line))
            or bool(PASSWORD.search(line) or BEARER.search(line))
            or any(secret in line for secret in secrets)
        )

    return [line for line in text.splitlines() if says_too_much(line.replace(EXAMPLE, ""))]


def _password_of(url: str) -> str:
    found = re.search(r"://[^\s:/@]*:([^\s@]+)@", url)
    return found[1] if found else ""


@pytest.fixture(scope="session", autouse=True)
def ears() -> Iterator[Ears]:
    """Of this process, and by way of PYTHONPATH (tests/overheard) of all that it starts."""
    made = Ears()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESTS_OVERHEARD", str(made.overheard.folder))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "overheard"), prepend=os.pathsep)
        original = Settings.__post_init__

        def remembering(settings: Settings) -> None:
            original(settings)
            made.learn(settings)

        patch.setattr(Settings, "__post_init__", remembering)
        yield made
    said = made.leaks()
    shutil.rmtree(made.overheard.folder, ignore_errors=True)
    complain(said)


@pytest.fixture(autouse=True)
def what_is_logged_is_read(ears: Ears) -> Iterator[None]:
    """First of all fixtures, so that it ends last: what is logged while the others end is read
    too."""
    ears.secrets.clear()  # a password of one test is a word like another in the next
    ears.listen()
    yield
    complain(ears.leaks())


def complain(said: list[str]) -> None:
    """Fails when there is something."""
    if said:
        pytest.fail(
            "logged, with a whole address or a secret in it:\n"
            + "\n".join(line[:500] for line in said),
            pytrace=False,
        )
