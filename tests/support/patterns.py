"""Every pattern of the code, and texts that make one slow if anything does.

As a program it reads names, one a line, and answers each with a line: `python -m
tests.support.patterns`. `Measurer` is such a process.
"""

import contextlib
import importlib
import inspect
import json
import pkgutil
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from pgqueue_service.api.problems import Refusal
from psycopg import ProgrammingError

from pgqueue.errors import QueueError
from tests.support.places import ROOT

LENGTH = 10_000
"""Characters of a hostile text: a quadratic pattern takes 50 million steps for them, a linear one
half a million at most."""

BOUND = 0.5
"""Seconds for one text. A linear pattern needs hundredths of one; a quadratic one a second, others
an age of the world."""

COMMON = ["\n", "0", "-", "'", '"', "\\", "(", ",", "%40", "=", "/", ":", " ", "@", ".", "a"]
"""Of what people and programs write, beside what the pattern itself names."""


def patterns() -> dict[str, re.Pattern[Any]]:
    """module.NAME -> every compiled pattern of the modules of pgqueue and service."""
    found = {}
    for package in ("pgqueue", "pgqueue_service"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if module.name.endswith("__main__"):
                continue
            for name, value in of_module(module.name).items():
                found[id(value)] = (name, value)
    return dict(found.values())


def of_module(module: str) -> dict[str, re.Pattern[Any]]:
    """The patterns that its names stand for, and those in its tuples, lists and dicts."""
    found = {}

    def look(name: str, value: Any) -> None:
        if isinstance(value, re.Pattern):
            found[f"{module}.{name}"] = value
        elif isinstance(value, tuple | list):
            for number, one in enumerate(value):
                look(f"{name}:{number}", one)
        elif isinstance(value, dict) and not name.startswith("__"):
            for key, one in value.items():
                look(f"{name}:{key}", one)

    for name, value in vars(importlib.import_module(module)).items():
        look(name, value)
    return found


def words_of(pattern: re.Pattern[Any]) -> list[str]:
    """The literal characters of a pattern, alone and as the runs in which they stand, one of each
    of its classes among them."""
    found: set[str] = set()

    def walk(parts: Iterable[Any]) -> None:
        run = ""
        for operation, argument in parts:
            name = str(operation)
            if name == "LITERAL":
                run += chr(argument)
                found.add(chr(argument))
                continue
            found.add(run)
            run = ""
            if name == "IN":
                found.update(chr(value) for kind, value in argument if str(kind) == "LITERAL")
                found.update(chr(value[0]) for kind, value in argument if str(kind) == "RANGE")
            inner: list[Any] = list(argument) if isinstance(argument, tuple | list) else []
            while inner:
                one = inner.pop()
                if type(one).__name__ == "SubPattern":
                    walk(one)
                elif isinstance(one, list):
                    inner += one
        found.add(run)

    walk(re._parser.parse(pattern.pattern))  # type: ignore[attr-defined]
    return sorted(word for word in found if word)


def hostile(words: Iterable[str], length: int = LENGTH) -> Iterator[str]:
    """Runs of each word, of two in turn, of one and then another; nested; ended by what fits
    nothing."""
    words = [*(word for word in words if word not in COMMON), *COMMON][-32:]
    single, longer = [[word for word in words if (len(word) > 1) is many] for many in (False, True)]
    short = dict.fromkeys([*single[:4], *single[-7:], *longer[:3]])
    for word in words:
        for end in ("\x01", "@"):
            yield word * (length // len(word)) + end
    for first, second in product(short, short):
        pair = first + second
        yield pair * (length // len(pair)) + "\x01"
        yield first * (length // 2 // len(first)) + second * (length // 2 // len(second))
    for first, second, third in product([*single[:2], *single[-4:], *longer[:2]], repeat=3):
        # What can be split in many ways takes for ever before a text is long.
        yield first + second + third * (100 // len(third))
    for word in (word for word in words if len(word) > 1):
        for opener in (
            "='",
            '="',
            "=(",
            "=[",
            ": ",
            '\\": \\"',
            "=" + "\\" * (length // 2) + '"' + "\\" * (length // 2),
        ):
            text = word + opener
            yield text * max(1, length // len(text))


def slowest(calls: Iterable[Callable[[str], Any]], texts: Iterable[str]) -> tuple[float, str]:
    """Seconds, and the beginning of the text that took so long; ends at the first one beyond the
    bound."""
    worst = (0.0, "")
    for text in texts:
        for call in calls:
            started = time.process_time()
            # To refuse it is an answer.
            with contextlib.suppress(
                ValueError, RecursionError, QueueError, Refusal, ProgrammingError
            ):
                call(text)
            worst = max(worst, (time.process_time() - started, text[:40]))
            if worst[0] > BOUND:
                return worst
    return worst


def calls_of(name: str) -> list[Callable[[str], Any]]:
    """What the module of that pattern does with it: to search takes longer than to match at the
    beginning."""
    module, _, attribute = name.partition(":")[0].rpartition(".")
    loaded = importlib.import_module(module)
    pattern = of_module(module)[name]
    used = set(re.findall(rf"\b{attribute}\.(\w+)\(", inspect.getsource(loaded)))
    calls: list[Callable[[Any], Any]] = []
    if used & {"match", "fullmatch"}:
        calls += [pattern.match, pattern.fullmatch]
    if used - {"match", "fullmatch"} or not used:
        calls.append(lambda text: [*pattern.finditer(text)])
    if isinstance(pattern.pattern, bytes):
        return [lambda text, call=call: call(text.encode("utf-8", "replace")) for call in calls]
    return calls


def parsers() -> dict[str, Callable[[str], Any]]:
    """What reads foreign text with more than one pattern, or with none."""
    from pgqueue_service.api.auth import _hostname, _same
    from pgqueue_service.api.bulk import BulkBody
    from pgqueue_service.api.requests import path_id
    from pgqueue_service.api.strict_json import decode
    from pgqueue_service.notifications.mail.message import Sender, valid_address
    from pgqueue_service.notifications.mail.transports.endings import quoted
    from pgqueue_service.notifications.mail.transports.sendgrid import _point_in_time
    from pgqueue_service.text import paragraphs, shown
    from pgqueue_service.times import moment

    from pgqueue.durations import duration
    from pgqueue.masking import clean, mask
    from pgqueue.printable import safe, safe_json
    from pgqueue.settings.conninfo import libpq_string
    from pgqueue.settings.environment import limit, parse_queues, words

    return {
        "mask": mask,
        "clean": lambda text: clean(text, 2_000),
        "clean the end": lambda text: clean(text, 8_000, keep="end"),
        "safe": safe,
        "safe_json": safe_json,
        "duration": duration,
        "limit": limit,
        "parse_queues": parse_queues,
        "words": words,
        "libpq_string": lambda text: libpq_string(f"postgresql://{text}", False),
        "host header": _hostname,
        "origin header": lambda text: _same(text, "localhost:3333"),
        "moment": moment,
        "valid_address": valid_address,
        "the domain of an address": lambda text: valid_address(f"a@{text}"),
        "sender": Sender.parse,
        "paragraphs": paragraphs,
        "shown": lambda text: shown(text, 200),
        "a reply": lambda text: quoted(text, "ana@example.com"),
        "a date of a reply": _point_in_time,
        "path_id": path_id,
        "JSON": lambda text: decode(text.encode()),
        "a JSON text": lambda text: decode(b'"' + text.encode() + b'"'),
        "bulk items": lambda text: list(BulkBody(f'{{"jobs":[{text}]}}'.encode()).items()),
    }


def measured(name: str) -> tuple[float, str]:
    """Seconds of the slowest text, and its beginning."""
    module = name.partition(":")[0].rpartition(".")[0]
    if module:
        return slowest(calls_of(name), hostile(words_of(of_module(module)[name])))
    masks = [word for one in of_module("pgqueue.masking").values() for word in words_of(one)]
    words = masks if name in ("mask", "clean", "clean the end", "a reply") else []
    return slowest([parsers()[name]], hostile(words))


class Measurer:
    """A process that measures, started when it is needed and again when it had to be killed.

    A pattern that backtracks without end holds the interpreter's lock: no thread can measure it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def measure(self, name: str, within: float) -> tuple[float, str]:
        """Seconds of the slowest text, and its beginning. Raises TimeoutError after `within`
        seconds, and ChildProcessError when the process ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.patterns"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{name}\n")
        ready, _, _ = select.select([self._process.stdout], [], [], within)
        if not ready:
            self.close()
            raise TimeoutError(f"{name} took longer than {within} s")
        answer = self._process.stdout.readline()
        if not answer:
            self.close()
            raise ChildProcessError(f"the process that measured {name} ended")
        seconds, text = json.loads(answer)
        return seconds, text

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(measured(line.rstrip("\n"))), flush=True)
