"""The pages: every link leads somewhere, every snippet is a file that runs, and the reference is
complete."""

import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
from pgqueue_service.app import create_app
from pgqueue_service.settings import ServiceSettings

import pgqueue
from pgqueue.cli import main
from tests.support.places import ROOT
from tests.support.snippets import FENCE, SHOWN, filled, pages

PAGES = [path.relative_to(ROOT).as_posix() for path in pages()]

LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?P<target>[^()\s]+)\)")

CODE = {"python", "sql", "sh"}
"""Languages whose snippets must be files in examples/. Commands and settings are `console`, `text`,
`ini` or indented."""


def prose(text: str) -> str:
    """A page without its code."""
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    return re.sub(r"`[^`\n]*`", "", text)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names that the headings of a page have on the forge and in the built pages."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    names: list[str] = []
    for title in re.findall(r"(?m)^#{1,6} (.+?)\s*$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        name = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        count = names.count(name)
        names.append(f"{name}-{count}" if count else name)
    return frozenset(names)


def links(page: str) -> list[str]:
    found = LINK.finditer(prose((ROOT / page).read_text()))
    return [one["target"] for one in found if "://" not in one["target"]]


def broken(page: str, target: str) -> str | None:
    path, _, anchor = unquote(target).partition("#")
    file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    if not file.exists() or ROOT not in [file, *file.parents]:
        return f"{target}: there is no such file"
    if anchor and (file.suffix != ".md" or anchor not in anchors(file)):
        return f"{target}: there is no such heading"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    assert [said for target in links(page) if (said := broken(page, target))] == []


def test_every_page_of_docs_can_be_reached_from_its_index() -> None:
    reached, waiting = set(), ["docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in links(page):
            file = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_relative_to(ROOT / "docs"):
                waiting.append(file.relative_to(ROOT).as_posix())
    assert sorted({page for page in PAGES if page.startswith("docs/")} - reached) == []


@pytest.mark.parametrize("page", PAGES)
def test_shown_code_is_the_text_of_its_example(page: str) -> None:
    text = (ROOT / page).read_text()
    assert text == filled(text), "run .venv/bin/python -m tests.support.snippets"


@pytest.mark.parametrize("page", PAGES)
def test_no_code_is_shown_that_no_test_runs(page: str) -> None:
    text = (ROOT / page).read_text()
    shown = {one.start("code") for one in SHOWN.finditer(text)}
    loose = [
        one["code"]
        for one in FENCE.finditer(text)
        if one["language"] in CODE and one.start("code") not in shown
    ]
    assert loose == []


def test_a_broken_link_is_found() -> None:
    assert broken("README.md", "docs/none.md") == "docs/none.md: there is no such file"
    assert broken("README.md", "#no-such-heading") == "#no-such-heading: there is no such heading"
    assert broken("docs/index.md", "../README.md") is None


def test_the_built_pages_have_every_page_in_their_menu() -> None:
    menu = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    named = sorted(in_menu(menu))
    top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
    assert named == sorted([*top, *(page for page in PAGES if page.startswith("docs/"))])


def in_menu(entry: Any) -> Iterator[str]:
    match entry:
        case str():
            yield entry
        case list():
            for one in entry:
                yield from in_menu(one)
        case dict():
            for one in entry.values():
                yield from in_menu(one)


@pytest.mark.skipif(find_spec("zensical") is None, reason="needs the extra `docs`")
def test_the_pages_are_built_without_a_warning_and_load_nothing_from_another_host() -> None:
    command = [sys.executable, "docs/build.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = sorted((ROOT / "build" / "docs").rglob("*.html"))
    assert len(built) > len(PAGES) - 5
    loaded = [
        url
        for page in built
        for url in re.findall(
            r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)""",
            page.read_text(),
        )
    ]
    assert len(loaded) > len(built)
    assert [url for url in loaded if "//" in url] == []


def test_the_readme_begins_with_the_demo_and_the_tests() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"(?m)^    (python3 dev\.py \w+)$", text)
    assert commands[:2] == ["python3 dev.py demo", "python3 dev.py test"]
    assert len(text.splitlines()) <= 130


class TestReference:
    def test_settings_are_listed_with_their_defaults(self) -> None:
        text = (ROOT / "docs/reference/settings.md").read_text()
        listed = {
            name: default.strip("` ")
            for names, default in re.findall(r"(?m)^\| (`[A-Z].*?) \|(.*?)\|", text)
            for name in re.findall(r"`(\w+)`", names)
        }
        assert listed == settings_with_defaults()

    def test_the_file_of_settings_names_no_other(self) -> None:
        text = (ROOT / ".env.example").read_text()
        named = set(re.findall(r"(?m)^#? ?([A-Z][A-Z_]+)=", text))
        assert len(named) > 20
        known = settings_with_defaults().keys()
        files = {f"{name}_FILE" for name in known}
        assert named - known - files - {"SMTP_ENABLED", "PGQUEUE_PG_BINDIR"} == set()

    def test_every_command_is_shown_with_its_help(self) -> None:
        text = (ROOT / "docs/reference/command-line.md").read_text()
        assert set(re.findall(r"(?m)^<!-- help: ([a-z -]+) -->$", text)) == set(commands(main))

    def test_every_log_event_is_listed(self) -> None:
        text = (ROOT / "docs/reference/log-events.md").read_text()
        listed = {
            name
            for cell in re.findall(r"(?m)^\| (`.*?) \|", text)
            for name in re.findall(r"`([\w.]+)`", cell)
        }
        logged = {
            name
            for path in [*ROOT.glob("pgqueue/**/*.py"), *ROOT.glob("service/**/*.py")]
            for name in re.findall(r'"event": "([\w.]+)"', path.read_text())
        } - {"log", "unreadable"}  # no event; a row of an archive
        outcomes = {f"job.{status}" for status in ("completed", "failed", "dlq", "enqueued")}
        assert listed == logged | outcomes

    def test_every_route_is_listed(self) -> None:
        text = (ROOT / "docs/reference/http.md").read_text()
        listed = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[\w/{}-]*)`", text))
        app = create_app(ServiceSettings(database_url="postgresql://localhost/none"))
        served = {
            (method.upper(), path)
            for path, methods in app.openapi_schema.to_schema()["paths"].items()
            for method in methods
        }
        assert len(served) > 15
        assert served - listed == set()
        assert {path for _, path in listed} - {path for _, path in served} == {"/schema"}

    def test_every_public_name_is_explained(self) -> None:
        text = (ROOT / "docs/reference/python.md").read_text()
        missing = [name for name in pgqueue.__all__ if not re.search(rf"\b{name}\b", text)]
        assert missing == []

    def test_every_function_for_people_exists_with_its_parameters(self) -> None:
        text = (ROOT / "docs/reference/sql.md").read_text()
        rows = re.findall(r"(?m)^\| `(\w+)\((.*?)\)` \|", text)
        assert len(rows) > 7
        sources = "\n".join(path.read_text() for path in ROOT.glob("sql/**/*.sql"))
        for name, parameters in rows:
            found = re.search(rf"FUNCTION {name}\((.*?)\)\s+RETURNS", sources, re.DOTALL)
            assert found, name
            words = re.findall(r"\w+", parameters)
            assert [word for word in words if not re.search(rf"\b{word}\b", found[1])] == [], name


def settings_with_defaults() -> dict[str, str]:
    """Every name that a setting may have -> its default, as it is written in the environment."""
    return {
        name: field.metadata["default"] or ""
        for field in dataclasses.fields(ServiceSettings)
        if "name" in field.metadata
        for name in (field.metadata["name"], *field.metadata["also"])
    }


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    """`migrate`, `dlq list`, ...: every command that does something."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"
