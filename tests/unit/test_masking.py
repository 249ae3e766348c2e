"""Logs and stored texts: no whole address, no secret, no forged line; JSON for programs, lines for
people."""

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.settings import ServiceSettings

from pgqueue.log_stream import handler_for
from pgqueue.logs import LONGEST, HumanFormatter, JsonFormatter
from pgqueue.masking import clean, mask, mask_address


@pytest.mark.parametrize(
    ("address", "masked"),
    [("user@example.com", "u***@example.com"), ("ab@example.com", "***@example.com"),
     ("a@b.mn", "***@b.mn"),
     ("***@b.mn", "***@b.mn"), ("u***@b.mn", "u***@b.mn")],
)  # fmt: skip
def test_an_address_keeps_its_first_letter_and_its_domain(address: str, masked: str) -> None:
    assert mask_address(address) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "to <ana.maria@example.com>, cc bob@example.org",
            "to <a***@example.com>, cc b***@example.org",
        ),
        ("email=ana.maria@example.com&x=1", "email=a***@example.com&x=1"),
        ('{"email": "ana.maria@example.com"}', '{"email": "a***@example.com"}'),
        ("mailto:ana.maria@example.com", "mailto:a***@example.com"),
        ("/users/ana.maria@example.com/mail", "/users/a***@example.com/mail"),
        ("ana=@example.com", "a***@example.com"),
        ("o'brien@example.com", "o'b***@example.com"),
        ("ana%2Bx%40example.com", "ana%***%40example.com"),
        ("postgresql://bob:hunter2@db.internal:5432/x", "postgresql://bob:***@db.internal:5432/x"),
        ("password=hunter2 sslmode=require", "password=*** sslmode=require"),
        ('{"api_key": "SG.abc"}', '{"api_key": "***"}'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("SMTP_PASSWORD=hunter2", "SMTP_PASSWORD=***"),
        (
            "ServiceSettings(smtp_password='hunter2', host='x')",
            "ServiceSettings(smtp_password='***', host='x')",
        ),
        ("host=x password='a b c' port=1", "host=x password='***' port=1"),
        (
            r"KeyError: '\"host=x password=\'a b\'\" port=1'",
            r"KeyError: '\"host=x password=\'***\'\" port=1'",
        ),
        (r"password='it\'s b' port=1", "password='***' port=1"),
        ("PGQUEUE_ADMIN_TOKENS=abc,def HOST=x", "PGQUEUE_ADMIN_TOKENS=*** HOST=x"),
        ("api_tokens=('abc', 'def'), open=False", "api_tokens=***, open=False"),
        (r"{\"password\": \"hunter2\", \"x\": 1}", r"{\"password\": \"***\", \"x\": 1}"),
        ("password%3Dhunter2", "password%3D***"),
        ("%22api_key%22%3A%22hunter2%22", "%22api_key%22%3A%22***%22"),
        ("pwd: hunter2", "pwd: ***"),
        ("X-Api-Key: hunter2", "X-Api-Key: ***"),
        ("private_key='hunter2'", "private_key='***'"),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: Basic ***"),
        (
            "postgresql://bob:hunt?er#2@db/x?password=hunter2",
            "postgresql://bob:***@db/x?password=***",
        ),
        ("postgresql://bob:hun@ter2@db.internal/x", "postgresql://bob:***@db.internal/x"),
        ("password='hunt\rer2' x", "password='***' x"),
        ("tokens=(hunter2, hunter3", "tokens=***"),
        ("the token has expired", "the token has expired"),
        ("nothing to hide @ home", "nothing to hide @ home"),
    ],
)
def test_what_is_masked_in_a_text(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


LOCAL = st.text(
    alphabet="abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+-/=?^_`{|}~", min_size=3, max_size=30
)


@given(
    LOCAL.filter(lambda local: "***" not in local),
    st.sampled_from(["", "to=", "<", '"', "(", "user ", "x:"]),
)
def test_no_valid_address_survives_whole(local: str, before: str) -> None:
    assert f"{local}@example.com" not in mask(f"{before}{local}@example.com and more")


LONG = 500_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    ["a" * LONG + "@", "a" * LONG + " %40b.c", "w" * LONG + " ://", "://a:" * (LONG // 5),
     "b." * LONG + "@", "a@" + "b." * LONG,
     "password='" * (LONG // 10), "tokens=(" * (LONG // 8), "tokens=" + ",a" * LONG,
     "=" * LONG + "a@b.c"],
    ids=lambda text: text[:5],
)  # fmt: skip
def test_masking_takes_as_long_as_the_text_and_not_as_its_square(text: str) -> None:
    """32,000 characters without a space took 3 s, and a failed attempt may bring as many: minutes
    for these."""
    mask(text)


def test_settings_show_no_secret_to_whoever_prints_them() -> None:
    settings = ServiceSettings(
        database_url="postgresql://u:hunter2@h/x",
        admin_tokens=("hunter2",),
        smtp_password="hunter2",
    )
    assert "hunter2" not in repr(settings)
    assert "port=3333" in repr(settings)


def test_a_cut_text_says_so_and_keeps_the_wanted_end() -> None:
    assert clean("abcdef", 4) == "abc…"
    assert clean("abcdef", 4, keep="end") == "…def"
    assert clean("abcd", 4) == "abcd"


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "pgqueue.worker", "levelno": logging.INFO, "levelname": "INFO", "msg": message}
    )
    made.args = arguments
    vars(made).update(extra)
    return made


def test_json_lines_have_the_names_that_programs_read() -> None:
    line = JsonFormatter().format(
        record("Job %s completed in 12ms", "j-ana.maria@example.com", event="job.completed",
            jobId="j-ana.maria@example.com",
               status="completed", attemptCount=1, duration=12)
    )  # fmt: skip
    entry = json.loads(line)
    assert "\n" not in line
    assert entry["message"] == "Job j***@example.com completed in 12ms"
    assert {
        key: entry[key] for key in ("level", "event", "jobId", "status", "attemptCount", "duration")
    } == {
        "level": "info",
        "event": "job.completed",
        "jobId": "j***@example.com",
        "status": "completed",
        "attemptCount": 1,
        "duration": 12,
    }
    assert entry["timestamp"].endswith("Z")


def test_what_is_inside_of_what_was_given_is_masked_too() -> None:
    given = {
        "to": ["ana.maria@example.com", {"bob.b@example.com": ("bob.b@example.com", 1)}],
        "at": ValueError("ana.maria@example.com"),
    }
    line = JsonFormatter().format(record("it failed", **given))
    assert json.loads(line)["to"] == [
        "a***@example.com",
        {"b***@example.com": ["b***@example.com", 1]},
    ]
    assert json.loads(line)["at"] == "a***@example.com"


def test_an_id_with_a_line_break_forges_no_line() -> None:
    job_id = "j\n12:00:00 Job admin completed\x1b[2J"
    line = HumanFormatter().format(record("Job %s failed", job_id, jobId=job_id))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_an_exception_is_logged_masked() -> None:
    try:
        raise ValueError("no mailbox ana.maria@example.com")
    except ValueError as error:
        made = record("it failed")
        made.exc_info = (type(error), error, error.__traceback__)
    for formatter in (JsonFormatter(), HumanFormatter()):
        text = formatter.format(made)
        assert "ana.maria" not in text
        assert "a***@example.com" in text


HIDDEN = "".join(
    map(
        chr,
        [
            *range(32),
            *range(127, 160),
            0xAD,
            0x200B,
            0x200E,
            0x2028,
            0x202E,
            0x2066,
            0xFEFF,
            0xE0041,
        ],
    )
)


def test_no_character_of_a_log_line_controls_a_terminal_or_hides() -> None:
    for formatter in (JsonFormatter(), HumanFormatter()):
        line = formatter.format(
            record("Job %s failed: %s", f"j{HIDDEN}", HIDDEN, jobId=f"j{HIDDEN}", note=[HIDDEN])
        )
        assert not set(line) & set(HIDDEN)
    entry = json.loads(JsonFormatter().format(record("Job %s failed", HIDDEN, note=[HIDDEN])))
    assert (entry["message"], entry["note"]) == (f"Job {HIDDEN} failed", [HIDDEN])


FORGED = "j\n12:00:00 Job admin completed"


def test_only_the_program_begins_a_line_of_the_log() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        failed = record("it failed: %s", error)
        failed.exc_info = (type(error), error, error.__traceback__)
    two = record("two lines\n%s\nof ours", FORGED)
    for made in (
        record("got %s", FORGED),
        record(FORGED),
        two,
        record("%(x)s", {"x": FORGED}),
        failed,
    ):
        at_the_margin = [
            line for line in HumanFormatter().format(made).split("\n") if not line.startswith("  ")
        ]
        assert len(at_the_margin) == 1
    assert HumanFormatter().format(record("one\n%s", "two")).split("\n")[1:] == ["  two"]


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("ana.maria@example.com")


def test_what_cannot_be_shown_is_logged_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    loop: list[Any] = []
    loop.append(loop)
    for formatter in (JsonFormatter(), HumanFormatter()):
        line = formatter.format(
            record("%d of %s", "ana.maria@example.com", Unspeakable(), one=Unspeakable(), deep=loop)
        )
        assert "cannot be shown" in line
        assert "ana.maria" not in line
    handler = handler_for(sys.stderr)
    handler.setFormatter(logging.Formatter("%(missing)s"))
    handler.handle(record("ana.maria@example.com"))
    assert capsys.readouterr().err == "a line of pgqueue.worker could not be logged (ValueError)\n"


def test_a_line_is_no_longer_than_a_page_or_two_whatever_it_is_given() -> None:
    huge = "x" * 3_000_000
    made = record("got %s", huge, note=huge, more={"a": [huge]})
    assert len(JsonFormatter().format(made)) < 4 * LONGEST
    assert len(HumanFormatter().format(made)) < 2 * LONGEST
