"""Short, declarative sentences wherever a person reads.

The words below make a sentence hard for an engineer in a hurry whose first language is not English.
Do not swap the word: write the sentence anew, with a process or a row as its subject and the terms
of docs/glossary.md.
"""

import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pgqueue.cli import main
from tests.support.places import ROOT
from tests.support.snippets import pages

HARD = {
    r"somebody|someone": "a user, a caller, another process",
    r"nobody|no one": "no worker, no caller; or the passive voice",
    r"anybody|anyone": "any caller, any role",
    r"everybody|everyone": "all callers, all processes",
    r"who(?:m|so)?ever": "the process that; any role that",
    r"whatever|whichever": "any; or name the cases",
    r"whence|thereof|lest|forthwith|notwithstanding": "an everyday word",
    r"what came of|came of it|comes of it": "the outcome, the result",
    r"ma(?:d|k)es? good": "completes, repeats",
    r"is void|are void": "has no effect",
    r"all the same": "leave it out, or: still",
    r"mend(?:s|ed|ing)?": "repair, correct",
    r"g(?:ive|ives|iven|ave|iving) up(?: on)?": "stops, fails, moves to the dead-letter queue",
    r"keeps? house|housekeeping": "prunes, removes old rows",
    r"bur(?:y|ies|ied|ial|ying)": "moves to the dead-letter queue",
    r"(?:ha(?:s|ve|d)|it) in hand": "runs, holds the lease of",
    r"t(?:akes?|aken|ook) down": "stops, clears, removes",
    r"for want of": "because there is no",
    r"as it comes|as they come": "unchanged, with defaults",
    r"by (?:its|their) own word": "as the process reports",
    r"heard (?:of|from) again|not heard of": "did not report",
    r"is none the wiser|knows no better": "does not know",
    r"beside": "next to, at the same time as, besides",
}
"""A pattern -> what to write instead."""

WORDS = re.compile(rf"\b(?:{'|'.join(HARD)})\b", re.IGNORECASE)

ALLOWED = re.compile(
    r"""`nobody`|"nobody"|user nobody|someone@example\.com""",
)
"""The system user, and an address."""

RECORDS = ROOT / "docs" / "evidence"
"""Below it: reports, which name tests as they were called then."""


def files() -> list[Path]:
    prose = [path for path in pages() if path.parent == RECORDS or RECORDS not in path.parents]
    code = [
        path
        for pattern in ("pgqueue/**/*.py", "service/**/*.py", "sql/**/*.sql", "examples/*")
        for path in ROOT.glob(pattern)
        if path.is_file() and path.suffix != ".pyc"
    ]
    others = [ROOT / name for name in ("dev.py", ".env.example", "Containerfile")]
    return sorted([*prose, *code, *others, *ROOT.glob("deploy/*.yaml")])


FILES = [path.relative_to(ROOT).as_posix() for path in files()]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """What people read in a file: the line where each piece begins, and the piece."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from python_texts(text)
    elif path.suffix == ".sql":
        yield from grouped(
            (text.count("\n", 0, one.start()) + 1, one[0])
            for one in re.finditer(r"--[^\n]*|'(?:[^']|'')*'", text)
        )
    else:
        yield 1, text


def python_texts(text: str) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and strings."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    middle = getattr(tokenize, "FSTRING_MIDDLE", None)
    kinds = {tokenize.COMMENT, tokenize.STRING, middle}
    return grouped((one.start[0], one.string) for one in tokens if one.type in kinds)


def grouped(pieces: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Comments on lines that follow each other are one text."""
    begin, last, joined = 0, -1, ""
    for line, piece in pieces:
        comment = re.match(r"(?:#:?|--) ?", piece)
        if comment and line == last + 1:
            joined, last = f"{joined} {piece[comment.end() :]}", line
            continue
        if joined:
            yield begin, joined
        begin = line
        joined, last = (piece[comment.end() :], line) if comment else (piece, -1)
    if joined:
        yield begin, joined


def hard_words(text: str) -> list[str]:
    plain = ALLOWED.sub("", re.sub(r"\s+", " ", text))
    return [
        f"...{plain[max(0, one.start() - 40) : one.end() + 40]}..." for one in WORDS.finditer(plain)
    ]


def found(path: Path) -> list[str]:
    return [f"line {line}: {said}" for line, text in texts(path) for said in hard_words(text)]


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_no_hard_words(file: str) -> None:
    said = found(ROOT / file)
    assert said == [], f"see {Path(__file__).name} for what to write instead"


def test_help_texts_have_no_hard_words() -> None:
    assert [said for text in help_texts(main) for said in hard_words(text)] == []


def help_texts(command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            assert one is not None
            yield from help_texts(one, context)


def test_hard_words_are_found_wherever_a_person_reads() -> None:
    python = "# all the\n# same\nnobody = \"x\" '''y'''\nlog(\"mended %s\")  # given up\n"
    assert [line for line, text in python_texts(python) if hard_words(text)] == [1, 4, 4]
    assert hard_words("runs as `nobody`") == []
    assert list(itertools.islice(texts(ROOT / "sql" / "roles.sql"), 1))
