"""JSON that means one thing only; and many items of it taken apart before any of them is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as chosen
from hypothesis import strategies as st

from service.problems import Refusal
from service.strict import DEEPEST, Items, decode

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


def items_of(body: bytes, seconds: float = 1.0) -> list[Any] | None:
    found = Items.of(body, "jobs")
    if found is None:
        return None
    items: list[Any] = []
    while some := found.some(seconds):
        items += some
    return items


@chosen(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["jobs", "other", "more"]), anything, max_size=3), st.booleans(), st.booleans())
def test_the_items_are_those_of_the_array(body: dict[str, Any], spaces: bool, escapes: bool) -> None:
    text = json.dumps(body, ensure_ascii=escapes, indent=2 if spaces else None)
    jobs = body.get("jobs")
    for seconds in (0, 1):
        assert items_of(text.encode(), seconds) == (jobs if isinstance(jobs, list) else None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jobs": [1], "jobs": [1]}',
        b'{"jobs": [2], "jobs": [1]}',
        b'{"jobs": [1], "jo\\u0062s": [1]}',
        b'{"jobs": [1], "jobs": [1], "other": [1]}',
        b'{"jobs": [1], "jobs": [1], "other": "[1]"}',
        b'{"jobs": [1], "other": {"a": 1, "a": 1}}',
        b'{"other": 1, "jobs": [1], "other": 2}',
        b'{"jobs": [1], "other": NaN}',
        b'{"jobs": [1], "other": 1e999}',
        b'{"jobs": [1], "other": "\\ud800"}',
        b'{"jobs": [1], "other": ' + b"[" * 90 + b"]" * 90 + b"}",
    ],
)
def test_what_is_wrong_around_the_items_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        items_of(body) or decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b'"\\ud800"',
        b'"\\uDC00\\ud800"',
        b"NaN",
        b"[-Infinity]",
        b"-1e999",
        b"9" * 5000,
        b"\xef\xbb\xbf{}",
        b'"\xed\xa0\x80"',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": 1, "\\u0061": 1}',
        b'[{"b": {"a": 1, "a": 1}}]',
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b"[" * 100_000,
    ],
)
def test_what_means_two_things_or_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match=r"JSON|nested"):
        decode(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"jobs": {}}', b'{"jobs": [1]', b'{"jobs": [1]} x', b'{"jobs": "[1]"}'])
def test_what_has_no_items_is_left_to_somebody_who_says_why(body: bytes) -> None:
    assert Items.of(body, "jobs") is None


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (b'{"a": 1, "a": 1}', "a member twice"),
        (b"1e999", "out of range"),
        (b"9" * 5000, "not valid JSON"),
        (b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1), "nested too deeply"),
        (b'{"a": ' * 70 + b"1" + b"}" * 70, "nested too deeply"),
    ],
)
def test_an_item_that_is_refused_comes_after_those_before_it(item: bytes, sentence: str) -> None:
    first, second, refused = items_of(b'{"jobs": [1, {"b": []}, ' + item + b", 4]}") or []
    assert (first, second) == (1, {"b": []})
    assert sentence in str(refused)


def test_no_more_items_are_read_than_there_is_time_for() -> None:
    items = Items.of(b'{"jobs": [1, 2, 3]}', "jobs")
    assert items is not None
    assert [items.some(0) for _ in range(4)] == [[1], [2], [3], []]


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\\ud83d\\ude00"}',
        '{"a": "😀"}'.encode(),
        b'{"a": "\\\\ud800"}',
        b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}',
        b" [1e-400, -0.0, 1E5, 123456789012345678901234567890] ",
        b"[" * DEEPEST + b"]" * DEEPEST,
    ],
)
def test_what_looks_odd_and_is_not(body: bytes) -> None:
    assert decode(body) == json.loads(body)
