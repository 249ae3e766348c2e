"""Every guard in the SQL that the code runs, and the tests that fail without it.

A guard is a condition, a lock or a constraint that keeps a promise of docs/concepts/engine.md.
tests/guards/test_guards.py finds the text of guards in sql/queries, sql/migrations and
sql/functions, and fails when one is missing here or has changed; tests/guards/mutants.py takes each
out and runs its tests, which have to fail.

When a statement changes: give the entry the guard's new words. When a guard is new: an entry for
it, and a test that misses it (staged with locks, not with waiting). When taking it out cannot be
noticed, say why in `why` and name no test.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple


class Test(NamedTuple):
    """In tests/: file::name or file::Class::name; and, where it has parameters, [some of their ids,
    joined by -]."""

    place: str
    case: str

    __test__ = False

    @property
    def file(self) -> str:
        return self.place.partition("::")[0]


@dataclass(frozen=True)
class Guard:
    name: str
    file: str
    """Below sql/."""
    swaps: dict[str, str]
    """Words that are in the file exactly once, however they are broken into lines -> what is put
    there to take the guard out."""
    tests: tuple[Test, ...]
    slow: bool = False
    """Takes more than a second to be missed: not in every run of all tests, only in `dev.py
    mutants`."""
    why: str = ""
    """Why no test can miss it."""

    def places(self, text: str) -> list[tuple[str, list[re.Match[str]]]]:
        """Where its words are in the code of the file; one place each, when the entry is right."""
        return [
            (old, list(re.finditer(r"\s+".join(map(re.escape, re.split(r"\s+", old))), text)))
            for old in self.swaps
        ]

    def taken_out(self, text: str) -> str:
        text = code(text)
        for old, new in self.swaps.items():
            (place,) = next(places for words, places in self.places(text) if words == old)
            text = text[: place.start()] + new + text[place.end() :]
        return text

    @property
    def told(self) -> str:
        return "\n".join(f"  {old!r} is {new!r}" for old, new in self.swaps.items())


def code(text: str) -> str:
    """SQL with its comments blanked out, so that places stay what they are."""
    return re.sub(r"--[^\n]*", lambda found: " " * len(found[0]), text)


def guard(
    name: str, file: str, swaps: dict[str, str], *tests: str, slow: bool = False, why: str = ""
) -> Guard:
    named = [test.removesuffix("]").partition("[") for test in tests]
    return Guard(name, file, swaps, tuple(Test(place, case) for place, _, case in named), slow, why)


def query(
    statement: str, what: str, swaps: dict[str, str], *tests: str, slow: bool = False, why: str = ""
) -> Guard:
    return guard(
        f"{statement}:{what}", f"queries/{statement}.sql", swaps, *tests, slow=slow, why=why
    )


def table(
    what: str, swaps: dict[str, str], *tests: str, slow: bool = False, why: str = ""
) -> Guard:
    """Of the migration that makes the tables."""
    return guard(f"tables:{what}", "migrations/0001_tables.sql", swaps, *tests, slow=slow, why=why)


def function(
    name: str, what: str, swaps: dict[str, str], *tests: str, slow: bool = False, why: str = ""
) -> Guard:
    return guard(f"{name}:{what}", f"functions/{name}.sql", swaps, *tests, slow=slow, why=why)
