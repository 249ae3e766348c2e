"""The decisions, without a database: how long to wait, and what becomes of a job."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgqueue.attempt import Claim
from pgqueue.errors import DependencyDown, Discard, Retry, Snooze
from pgqueue.job import Status
from pgqueue.policy import Released, TimedOut, Undecodable, backoff_delay, verdict
from pgqueue.task import Backoff


def a_claim(attempt: int = 1, most: int = 5) -> Claim:
    return Claim(
        uuid4().hex,
        attempt,
        "j",
        "t",
        "u",
        attempt,
        most,
        b"{}",
        datetime(2026, 1, 1, tzinfo=UTC),
        "default",
    )


def seconds(delay: timedelta | None) -> float:
    assert delay is not None
    return delay.total_seconds()


def test_attempts_start_2_4_8_and_16_seconds_after_the_failure_before() -> None:
    assert [
        seconds(verdict(a_claim(n), ValueError("x"), jitter=0).delay) for n in (1, 2, 3, 4)
    ] == [2, 4, 8, 16]


def test_the_fifth_failed_attempt_is_the_last() -> None:
    assert verdict(a_claim(5), ValueError("x")).status is Status.DLQ
    assert verdict(a_claim(4), ValueError("x")).status is Status.FAILED


@given(st.integers(1, 200), st.floats(0.001, 100), st.floats(0, 1))
def test_a_delay_is_never_shorter_than_the_backoff_and_at_most_a_tenth_longer(
    attempt: int, base: float, jitter: float
) -> None:
    cap = 3600.0
    base = round(base, 6)  # as durations are
    plain = min(base * 2.0 ** (attempt - 1), cap)
    delay = seconds(backoff_delay(Backoff(base, cap=cap), attempt, jitter))
    assert plain - 1e-5 <= delay <= min(plain * 1.1, cap) + 1e-5


def test_a_retry_after_counts_when_it_is_longer_than_the_backoff() -> None:
    assert seconds(verdict(a_claim(1), Retry(after=60), jitter=0).delay) == 60
    assert seconds(verdict(a_claim(4), Retry(after=1), jitter=0).delay) == 16
    assert verdict(a_claim(5), Retry(after=60)).status is Status.DLQ


@pytest.mark.parametrize(
    ("error", "status", "delay"),
    [
        (None, Status.COMPLETED, None),
        (Discard("no such user"), Status.DLQ, None),
        (Undecodable("no name"), Status.DLQ, None),
        (Snooze("5m"), Status.ENQUEUED, 300),
        (DependencyDown("smtp"), Status.ENQUEUED, 30),
        (Released(), Status.ENQUEUED, None),
    ],
)
def test_what_a_handler_raises_decides(error: Any, status: Status, delay: float | None) -> None:
    outcome = verdict(a_claim(5), error)
    assert outcome.status is status
    assert outcome.delay == (None if delay is None else timedelta(seconds=delay))


def test_the_error_names_the_exception_and_the_stack_shows_where() -> None:
    try:
        int("seven")
    except ValueError as error:
        outcome = verdict(a_claim(), error)
    assert outcome.error == "ValueError: invalid literal for int() with base 10: 'seven'"
    assert "test_policy.py" in (outcome.stack_trace or "")


def test_a_timeout_needs_no_stack() -> None:
    outcome = verdict(a_claim(), TimedOut("timed out after 60 s"))
    assert (outcome.error, outcome.stack_trace) == ("timed out after 60 s", None)


def test_no_address_and_no_secret_gets_into_the_stored_error() -> None:
    error = RuntimeError(
        "550 <ana.maria@example.com> refused; login postgresql://bob:hunter2@db/x password=hunter2"
    )
    outcome = verdict(a_claim(), error)
    for text in (outcome.error or "", outcome.stack_trace or ""):
        assert "a***@example.com" in text
        assert "ana.maria" not in text
        assert "hunter2" not in text


@given(st.text(alphabet=st.characters(), max_size=3000))
def test_whatever_the_text_it_can_be_stored(text: str) -> None:
    outcome = verdict(a_claim(), RuntimeError(text + "\x00\ud800"))
    assert outcome.error is not None
    assert outcome.stack_trace is not None
    outcome.error.encode()
    outcome.stack_trace.encode()
    assert "\x00" not in outcome.error + outcome.stack_trace
    assert len(outcome.error) <= 2000
    assert len(outcome.stack_trace) <= 8000
