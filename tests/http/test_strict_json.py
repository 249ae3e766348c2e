"""JSON that means one thing only; and many items of it taken apart before any of them is read."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as chosen
from hypothesis import strategies as st
from pgqueue_service.api.array_body import LONGEST, ArrayBody
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.schemas import Strict
from pgqueue_service.api.strict_json import DEEPEST, decode, decoder

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


class Body(Strict):
    jobs: Any
    other: Any = None
    more: Any = None


class JobsBody(ArrayBody):
    shape = Body
    array = "jobs"


def items_of(body: bytes) -> list[Any] | None:
    """None when there is no array. What is around the items is checked too."""
    long = JobsBody(body)
    items = list(long.items())
    jobs = long.whole(items).jobs
    return jobs if isinstance(jobs, list) else None


@chosen(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["jobs", "other", "more"]), anything, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_the_items_are_those_of_the_array(
    body: dict[str, Any], spaces: bool, escapes: bool
) -> None:
    text = json.dumps(body, ensure_ascii=escapes, indent=2 if spaces else None)
    if "jobs" in body:
        jobs = body["jobs"]
        assert items_of(text.encode()) == (jobs if isinstance(jobs, list) else None)
    else:
        with pytest.raises(Refusal, match="Missing required field: jobs"):
            items_of(text.encode())


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
        items_of(body)


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


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "no body"),
        (b"[]", "must be a JSON object"),
        (b"17", "must be a JSON object"),
        (b"[1", "not valid JSON"),
        (b"{}", "Missing required field: jobs"),
        (b'{"jobs": [1]', "not valid JSON"),
        (b'{"jobs": [1', "not valid JSON"),
        (b'{"jobs": [1]} x', "not valid JSON"),
        (b'{"jobs": [1],}', "not valid JSON"),
        (b'{"jobs": [1,]}', "not valid JSON"),
        (b'{"jobs": [1 2]}', "not valid JSON"),
        (b'{"jobs" [1]}', "not valid JSON"),
        (b"{jobs: [1]}", "not valid JSON"),
        (b'{"jobs": [1], "other": "\xff"}', "not valid JSON"),
        (b'{"jobs": ["\xd0"]}', "not valid JSON"),
        (b'{"jobs": [1], "othre": 2}', "Unknown member othre: did you mean other?"),
        (b'{"x": [' + b"1," * 1_000_000, "Unknown member x: known are jobs, other, more"),
        (b"[" + b"1," * 1_000_000, "must be a JSON object"),
    ],
)
def test_what_is_no_body_with_items(body: bytes, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        items_of(body)
    assert sentence in str(refused.value)


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
    items = JobsBody(b'{"jobs": [1, {"b": []}, ' + item + b", 4]}").items()
    assert (next(items), next(items)) == (1, {"b": []})
    with pytest.raises(Refusal, match=rf"jobs\[2\]: .*{sentence}") as refused:
        next(items)
    assert refused.value.index == 2


FITS = LONGEST - len(b'{"a":""}')


@pytest.mark.parametrize(
    "inside",
    [
        b"x" * FITS,
        b"\xd0\x96" * (FITS // 2),
        b"\xf0\x9f\x98\x80" * (FITS // 4),
        b'\\"' * (FITS // 2),
        b"[" * FITS,
    ],
)
@pytest.mark.parametrize("before", [b"", b" " * 200_000, b'{"a":"' + b"x" * 60_000 + b'"},' * 1])
def test_an_item_may_be_as_large_as_a_body_and_no_larger(inside: bytes, before: bytes) -> None:
    fits, exceeds = (
        b'{"jobs":[' + before + b'{"a":"' + inside + more + b'"},1]}' for more in (b"", b"\\\\" * 5)
    )
    found = items_of(fits)
    assert found
    assert found[-2:] == [json.loads(b'{"a":"' + inside + b'"}'), 1]
    index = len(found) - 2
    with pytest.raises(Refusal, match=rf"jobs\[{index}\]: it is longer than 64 KiB") as refused:
        items_of(exceeds)
    assert (refused.value.status, refused.value.index) == (400, index)


MANY = 12 * 1024 * 1024
LONG = {
    "a string": b'"' + b"x" * MANY + b'"',
    "a string of escapes": b'"' + b"\\u0416" * (MANY // 6) + b'"',
    "a string without end": b'"' + b"x" * MANY,
    "numbers": b"[" + b"1," * (MANY // 2) + b"1]",
    "digits": b"1" * MANY,
    "objects": b"[" + b"{}," * (MANY // 3) + b"{}]",
    "members": b"{" + b",".join(b'"%d":1' % n for n in range(MANY // 16)) + b"}",
    "depth": b"[" * MANY,
    "texts": b"[" + b'"",' * (MANY // 3) + b'""]',
    "words": b"[" + b"null," * (MANY // 5) + b"null]",
    "emoji": b'"' + "😀".encode() * (MANY // 4) + b'"',
}


@pytest.mark.parametrize("long", LONG.values(), ids=LONG)
@pytest.mark.parametrize(
    "around",
    [
        b'{"jobs":[1,%b]}',
        b'{"jobs":[1,{"a":%b}]}',
        b'{"other":%b,"jobs":[1]}',
        b'{"jobs":%b}',
        b"%b",
    ],
)
def test_the_decoder_never_gets_much_at_once(
    long: bytes, around: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it works nothing else does."""
    given = []

    class Watched(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            given.append(len(s) - idx)
            return decoder.raw_decode(s, idx)

    monkeypatch.setattr("pgqueue_service.api.array_body.decoder", Watched())
    items = JobsBody(around.replace(b"%b", long)).items()
    with contextlib.suppress(Refusal):
        for _ in range(20_000):
            next(items, None)
    assert max(given, default=0) <= 2 * LONGEST


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
