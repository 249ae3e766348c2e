"""docs/threat-model.md names what stands against each threat: it must be there, and the page must
stay one."""

import re

from tests.support.places import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_what_it_names_is_there() -> None:
    pattern = r"`((?:tests|sql|deploy)/[\w./-]+|Containerfile|constraints\.txt)(?:::(\w+))?`"
    named = set(re.findall(pattern, PAGE))
    assert len(named) > 20
    assert [name for name, _ in sorted(named) if not (ROOT / name).exists()] == []
    parts = [(name, part) for name, part in sorted(named) if part]
    assert [one for one in parts if not _defines(*one)] == []


def _defines(file: str, name: str) -> bool:
    return bool(re.search(rf"(?m)^(?:class|(?:async )?def) {name}\b", (ROOT / file).read_text()))


def test_every_threat_has_something_that_shows_what_stands_against_it() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert all(cell.strip() for cell in row[1:]), row
        assert "`" in row[3], row


def test_it_is_a_page() -> None:
    assert len(PAGE.splitlines()) < 100
