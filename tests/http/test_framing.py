"""What reaches the HTTP parser: whole heads of at most 64 KiB, one Content-Length or chunks, no
trailers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.server.framing import HEAD, LINES, Framing, Malformed

CHUNKED = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    b"\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    + CHUNKED
    + b"3;a=b\r\nabc\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\n"
    b"DELETE /c HTTP/1.0\r\ncontent-length:0\r\n\r\n"
)


def passed_on(data: bytes, cuts: list[int]) -> tuple[bytes, Framing]:
    framing, passed = Framing(), b""
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        framing.feed(data[start:end])
        while (piece := framing.next()) is not None:
            passed += piece
    return passed, framing


def refusal(data: bytes, cuts: list[int] | None = None) -> tuple[int, str]:
    with pytest.raises(Malformed) as refused:
        passed_on(data, cuts or [])
    return refused.value.status, refused.value.sentence


def unchunked(data: bytes) -> bytes:
    """The same with each chunk's size left out: how chunks are cut says nothing."""
    head, _, rest = data.partition(CHUNKED)
    body = b""
    while not rest.startswith(b"0\r\n\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return head + CHUNKED + body + rest


@given(st.lists(st.integers(0, len(MANY)), max_size=40).map(sorted))
def test_however_it_is_cut_the_same_is_passed_on(cuts: list[int]) -> None:
    passed, framing = passed_on(MANY, cuts)
    whole = (
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
        + CHUNKED
        + b"abc0123456789"
        b"0\r\n\r\nDELETE /c HTTP/1.0\r\ncontent-length:0\r\n\r\n"
    )
    assert unchunked(passed) == whole
    assert (framing.in_body, framing.held) == (False, 0)


def test_a_head_is_passed_on_whole_or_not_at_all() -> None:
    framing = Framing()
    framing.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r")
    assert framing.next() is None
    framing.feed(b"\n")
    assert framing.next() == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_64_kib_are_taken_and_a_byte_more_is_not() -> None:
    start, end = b"GET / HTTP/1.1\r\nX: ", b"\r\n\r\n"
    fits = start + b"a" * (HEAD - len(start + end)) + end
    assert passed_on(fits, [])[0] == fits
    assert refusal(start + b"a" * (HEAD - len(start + end) + 1) + end)[0] == 431


ENDLESS = {
    "a header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 10 * HEAD, 431),
    "a name of a header": (b"GET / HTTP/1.1\r\n" + b"a" * 10 * HEAD, 431),
    "headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2 * HEAD, 431),
    "large headers": (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 60_000 + b"\r\n") * 20, 431),
    "folded headers": (b"GET / HTTP/1.1\r\na: b\r\n" + b" c\r\n" * 2 * HEAD, 431),
    "a URL": (b"GET /" + b"a" * 10 * HEAD, 414),
    "a query": (b"GET /?" + b"a=b&" * 3 * HEAD, 414),
    "a method": (b"G" * 10 * HEAD, 414),
    "a trailer": (CHUNKED + b"0\r\nx: " + b"a" * 10 * HEAD, 431),
    "trailers": (CHUNKED + b"0\r\n" + b"x: y\r\n" * 2 * HEAD, 431),
    "an extension": (CHUNKED + b"1;x=" + b"a" * 10 * HEAD, 400),
    "extensions": (CHUNKED + (b"1;x=" + b"a" * 2000 + b"\r\nb\r\n") * 1000, 400),
    "chunks of a byte": (CHUNKED + b"1\r\na\r\n" * HEAD, 400),
    "zeros of a size": (CHUNKED + b"0" * 10 * HEAD, 400),
    "spaces of a size": (CHUNKED + b"1" + b" " * 10 * HEAD, 400),
}


@pytest.mark.parametrize(("data", "status"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("step", [1000, 65536, 262144])
def test_what_has_no_end_is_refused_and_not_kept(data: bytes, status: int, step: int) -> None:
    framing = Framing()

    def send() -> None:
        for start in range(0, len(data), step):
            framing.feed(data[start : start + step])
            while framing.next() is not None:
                pass
            assert framing.held <= HEAD

    with pytest.raises(Malformed) as refused:
        send()
    assert refused.value.status == status


def test_many_headers_are_refused_although_they_are_small() -> None:
    assert passed_on(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * LINES + b"\r\n", [])[0]
    assert refusal(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (LINES + 1) + b"\r\n")[0] == 431


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\ncontent-length: 6\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: \r\n",
        b"Content-Length: 9999999999999999999\r\n",
        "Content-Length: ٥\r\n".encode(),
        b"Content-Length : 5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"X: y\0\r\n",
        b": y\r\n",
        b"x\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways(headers: bytes) -> None:
    assert refusal(b"POST / HTTP/1.1\r\n" + headers + b"\r\nhello")[0] == 400


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\nab\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
        CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_at_once(data: bytes) -> None:
    assert refusal(data)[0] == 400
