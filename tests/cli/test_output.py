"""What the command line prints, as far as it needs no database."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.cli import COMMANDS, main
from pgqueue.cli.check import judge
from pgqueue.cli.output import as_json, camel, cell, masked, safe, span
from pgqueue.cli.status import connections
from pgqueue.settings import Settings


@given(st.text())
def test_nothing_printed_moves_a_cursor(text: str) -> None:
    assert safe(text).isprintable() or not any(
        ord(one) < 32 or 127 <= ord(one) < 160 for one in safe(text)
    )
    assert "\x1b" not in safe(text, lines=True)
    assert "\u202e" not in safe(text)
    safe(text).encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_json_and_nothing_in_it_moves_a_cursor(value: object) -> None:
    try:
        written = as_json(value)
    except UnicodeEncodeError:
        return  # a lone surrogate: the database stores none
    assert json.loads(written) == value
    assert not any(one < 32 or one == 127 for one in written)


def test_json_has_the_times_of_the_contract() -> None:
    eastern = timezone(timedelta(hours=8))
    value = {
        "at": datetime(2026, 11, 23, 8, 0, 0, 1234, eastern),
        "for": timedelta(seconds=1.5),
        "id": UUID(int=1),
        "whole": Decimal("3"),
        "part": Decimal("0.25"),
    }
    assert json.loads(as_json(value)) == {
        "at": "2026-11-23T00:00:00.001Z",
        "for": 1.5,
        "id": "00000000-0000-0000-0000-000000000001",
        "whole": 3,
        "part": 0.25,
    }


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0, "0ms"),
        (0.0124, "12ms"),
        (3.44, "3.4s"),
        (90, "1.5m"),
        (7200, "2.0h"),
        (86400 * 3, "3.0d"),
    ],
)
def test_lengths_of_time(seconds: float | None, expected: str) -> None:
    assert span(seconds) == expected


def test_cells() -> None:
    moment = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert [cell(one) for one in (None, True, moment, [1, "a"], {"q": 5}, "a\nb", 0.25)] == [
        "-",
        "yes",
        "2026-11-23 10:00:00Z",
        "1, a",
        "q:5",
        "a\\nb",
        "0.25",
    ]


def test_addresses_are_masked_wherever_they_are() -> None:
    value = {
        "to": ["somebody@example.com"],
        "deep": {"a@example.com": "for somebody@example.com"},
        "n": 1,
    }
    assert masked(value) == {
        "to": ["s***@example.com"],
        "deep": {"***@example.com": "for s***@example.com"},
        "n": 1,
    }


def test_names_become_those_of_http() -> None:
    assert [camel(one) for one in ("job_id", "oldest_ready_s", "queue")] == [
        "jobId",
        "oldestReadyS",
        "queue",
    ]


def test_a_threshold_is_crossed_from_above() -> None:
    row = {
        "dead": 10,
        "failed_share": Decimal("0.051"),
        "p99_s": None,
        "depth": 0,
        "unserved": 0,
        "disagreements": 0,
    }
    thresholds = {
        "dead": 10.0,
        "failures": 5.0,
        "p99": 10.0,
        "depth": 1000.0,
        "unserved": 0.0,
        "disagreements": 0.0,
    }
    assert [one.name for one in judge(row, thresholds) if one.crossed] == ["failures"]


def test_connections_of_each_kind_of_process() -> None:
    def worker(settings: Settings) -> tuple[int, int]:
        (row,) = [one for one in connections(settings) if one["process"] == "worker"]
        return row["usual"], row["direct"]

    url = "postgresql://127.0.0.1/x"
    assert worker(Settings(database_url=url)) == (6, 0)
    assert worker(Settings(database_url=url, doorbell=False)) == (5, 0)
    assert worker(Settings(database_url=url, pgbouncer=True)) == (5, 0)
    assert worker(Settings(database_url=url, pgbouncer=True, direct_url=url)) == (4, 2)


def test_every_command_explains_itself() -> None:
    listed = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        assert f"  {name} " in listed
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, (name, result.output)
        assert result.output.startswith(f"Usage: main {name}")


def test_a_command_that_is_none_is_2() -> None:
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2


def test_help_and_enqueue_import_no_web_framework() -> None:
    heavy = ("litestar", "uvicorn", "rich", "jinja2")
    code = (
        f"import sys, pgqueue.cli, pgqueue.cli.jobs; print([one for one in {heavy} if one in "
        "sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
