"""Callers on the wire that mean no good: what the API and a worker's health port let them hold, and
for how long.

Against processes, with raw sockets, and with both of uvicorn's parsers.
"""

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pgqueue_service.server.framing import HEAD
from psycopg import AsyncConnection

from pgqueue.worker.health import MAX_CONNECTIONS, health_server
from tests.http.test_api_process import Api, environment, ready
from tests.support.api import SIGN_IN, SIGNIN
from tests.support.factories import value
from tests.support.scene import until

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]
KIB = 1024
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = f"POST {SIGNIN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = json.dumps(SIGN_IN).encode()


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has this parser; h11 is taken where httptools cannot be
    imported."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
        return {}
    (tmp_path / "httptools.py").write_text("raise ImportError('not installed, for this test')\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


@asynccontextmanager
async def an_api(
    database_url: str, *environments: dict[str, str], **more: str
) -> AsyncIterator[Api]:
    variables = environment(database_url, **more)
    for one in environments:
        variables |= one
    async with ready(**variables) as (api, _):
        yield api


@asynccontextmanager
async def calling(api: Api, count: int = 1) -> AsyncIterator[list[Caller]]:
    host, port = api.url.removeprefix("http://").split(":")
    callers = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield callers
    finally:
        for _, writer in callers:
            writer.close()


async def said(reader: asyncio.StreamReader) -> bytes:
    """All until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while some := await reader.read(KIB):
            found += some
    return found


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, whose body is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    await reader.readexactly(length)
    return int(head.split()[1])


async def asked(api: Api, request: bytes) -> int:
    async with calling(api) as [(reader, writer)]:
        writer.write(request)
        return await answered(reader)


async def flood(caller: Caller, start: bytes, more: bytes, times: int) -> bytes:
    """Sends without end, as it were; returns what the server says before it closes."""
    reader, writer = caller
    answer = asyncio.create_task(said(reader))
    with contextlib.suppress(ConnectionError):
        writer.write(start)
        for _ in range(times):
            writer.write(more)
            await writer.drain()
    return await answer


def problem_in(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    problem: dict[str, Any] = json.loads(body)
    assert problem["error"] == problem["message"] == problem["detail"]
    assert head.split()[1] == str(problem["status"]).encode()
    return problem


FLOODS = {
    "headers of 60 KB": (b"GET /healthz HTTP/1.1\r\n", b"x: " + b"a" * 60_000 + b"\r\n", 431),
    "a header without end": (b"GET /healthz HTTP/1.1\r\nx: ", b"a" * 60_000, 431),
    "a name without end": (b"GET /healthz HTTP/1.1\r\n", b"a" * 60_000, 431),
    "headers without end": (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 10_000, 431),
    "a URL without end": (b"GET /", b"a" * 60_000, 414),
    "a query without end": (b"GET /?", b"a=b&" * 15_000, 414),
    "trailers without end": (CHUNKED + b"0\r\n", b"x: " + b"a" * 60_000 + b"\r\n", 431),
    "a trailer without end": (CHUNKED + b"0\r\nx: ", b"a" * 60_000, 431),
    "an extension without end": (CHUNKED + b"1;x=", b"a" * 60_000, 400),
    "chunks of a byte": (CHUNKED, b"1\r\na\r\n" * 10_000, 400),
}


class TestFloods:
    async def test_they_are_answered_closed_and_not_kept(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        async with an_api(database_url, parser) as api:
            process = psutil.Process(api.process.pid)
            before = process.memory_info().rss
            for name, (start, more, status) in FLOODS.items():
                async with calling(api, 2) as callers:
                    for answer in await asyncio.gather(
                        *(flood(one, start, more, 250) for one in callers)
                    ):
                        assert problem_in(answer)["status"] == status, name
                    assert await asked(api, GET) == 200
            # Twice 15 MB each of them, ten of them.
            assert process.memory_info().rss - before < 32 * KIB * KIB

    async def test_pipelined_requests_wait_outside(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        async with an_api(database_url, parser) as api:
            process = psutil.Process(api.process.pid)
            before = process.memory_info().rss
            async with calling(api) as [(reader, writer)]:
                writer.write(GET * 200)
                assert [await answered(reader) for _ in range(200)] == [200] * 200
            async with calling(api, 3) as callers:

                async def pour(writer: asyncio.StreamWriter) -> None:
                    with contextlib.suppress(ConnectionError):
                        while True:
                            writer.write(GET * 1000)
                            await writer.drain()

                # Nobody reads what is answered.
                pouring = [asyncio.create_task(pour(writer)) for _, writer in callers]
                assert [await asked(api, GET) for _ in range(200)] == [200] * 200
                assert process.memory_info().rss - before < 32 * KIB * KIB
                for one in pouring:
                    one.cancel()

    async def test_requests_in_one_packet_are_answered_in_their_order(
        self, database_url: str, parser: dict[str, str], connection: Connection
    ) -> None:
        async with an_api(database_url, parser) as api, calling(api) as [(reader, writer)]:
            whole = POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
            chunks = (
                CHUNKED
                + b"".join(b"%x;x=y\r\n%b\r\n" % (1, bytes([one])) for one in EVENT)
                + b"0\r\nX-Trailer: y\r\n\r\n"
            )
            writer.write(
                GET
                + whole
                + chunks
                + b"DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                + whole
            )
            assert [await answered(reader) for _ in range(5)] == [200, 202, 202, 405, 202]
        assert await value(connection, "SELECT count(*) FROM job_logs") == 3

    async def test_a_trailer_is_no_header(
        self, database_url: str, parser: dict[str, str], connection: Connection
    ) -> None:
        async with an_api(database_url, parser) as api:
            body = b"%x\r\n%b\r\n0\r\nIdempotency-Key: mine\r\n\r\n" % (len(EVENT), EVENT)
            assert await asked(api, CHUNKED + body) == 202
        assert await value(connection, "SELECT count(*) FROM job_logs WHERE job_id = 'mine'") == 0


class TestSlowness:
    QUICK = {"PGQUEUE_HEADER_TIMEOUT": "1s", "PGQUEUE_BODY_TIMEOUT": "1s"}

    NEVER_ENDED: tuple[tuple[bytes, int | None], ...] = (
        (b"", None),
        (b"\r\n", None),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", 408),
        (POST + b"Content-Length: 100\r\n\r\n", 408),
        (POST + b"Content-Length: 100\r\n\r\n{", 408),
        (POST + b"Content-Length: 1000000000000\r\n\r\n", 413),
        (CHUNKED, 408),
        (CHUNKED + b"5\r\nhe", 408),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", 408),
        # Answered before the body came.
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", 200),
    )
    """What a caller sends before it falls silent -> the status of the answer; None: there is
    none."""

    async def test_what_never_comes_is_not_waited_for(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        """Each by a connection of its own, all at the same time."""
        async with (
            an_api(database_url, parser, self.QUICK) as api,
            calling(api, len(self.NEVER_ENDED)) as callers,
        ):
            for (_, writer), (sent, _) in zip(callers, self.NEVER_ENDED, strict=True):
                writer.write(sent)
            answers = await asyncio.wait_for(
                asyncio.gather(*(said(reader) for reader, _ in callers)), 20
            )
            for answer, (sent, status) in zip(answers, self.NEVER_ENDED, strict=True):
                assert (int(answer.split()[1]) if answer else None) == status, sent
                if status == 408:
                    problem_in(answer)

    async def test_drops_do_not_prolong_it(self, database_url: str, parser: dict[str, str]) -> None:
        async with an_api(database_url, parser, self.QUICK) as api, calling(api, 3) as callers:
            starts = [
                b"GET /healthz HTTP/1.1\r\nx: ",
                POST + b"Content-Length: 60000\r\n\r\n",
                CHUNKED,
            ]

            async def drip(caller: Caller, start: bytes) -> bytes:
                reader, writer = caller
                answer = asyncio.create_task(said(reader))
                writer.write(start)
                while not answer.done():
                    with contextlib.suppress(ConnectionError):
                        writer.write(b"1\r\na\r\n" if start is CHUNKED else b"a")
                        await writer.drain()
                    await asyncio.sleep(0.1)
                return await answer

            work = asyncio.gather(
                *(drip(caller, start) for caller, start in zip(callers, starts, strict=True))
            )
            assert [
                problem_in(answer)["status"] for answer in await asyncio.wait_for(work, 20)
            ] == [408] * 3

    async def test_the_next_request_has_its_own_time(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        async with (
            an_api(database_url, parser, self.QUICK) as api,
            calling(api) as [(reader, writer)],
        ):
            writer.write(GET)
            assert await answered(reader) == 200
            await asyncio.sleep(2.5)  # idle for longer than the headers of a request may take
            writer.write(GET[:20])
            await asyncio.sleep(0.1)
            writer.write(GET[20:])
            assert await answered(reader) == 200
            writer.write(GET[:20])
            assert problem_in(await asyncio.wait_for(said(reader), 20))["status"] == 408


class TestCrowds:
    async def test_a_thousand_that_send_nothing_keep_no_others_out(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        with room_for_files(3000):
            async with an_api(database_url, parser) as api, calling(api, 1100):
                assert [await asked(api, GET) for _ in range(20)] == [200] * 20
                assert api.process.returncode is None

    async def test_the_soft_limit_of_files_is_raised(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            api = an_api(database_url, parser)
            entered = await api.__aenter__()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            assert psutil.Process(entered.process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] == min(
                hard, 1 << 20
            )
        finally:
            await api.__aexit__(None, None, None)

    async def test_few_files_make_few_connections(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        """And none of them ends the process, or keeps others out."""
        starved = {"PGQUEUE_APP": "tests.support.starved:create_app"}
        async with an_api(database_url, parser, starved) as api, calling(api, 400):
            assert [await asked(api, GET) for _ in range(20)] == [200] * 20

    async def test_the_idle_make_room_first(
        self, database_url: str, parser: dict[str, str]
    ) -> None:
        # The connection of the test's own that asked whether it is ready is an idle one too.
        four = {"PGQUEUE_HTTP_CONNECTIONS": "4"}
        async with an_api(database_url, parser, four) as api, calling(api, 3) as [idle, half, body]:
            for reader, writer in (idle, half, body):
                writer.write(GET)
                assert await answered(reader) == 200
            half[1].write(GET[:20])
            body[1].write(POST + b"Content-Length: %d\r\n\r\n" % len(EVENT))
            await asyncio.sleep(0.2)
            async with calling(api, 2) as newcomers:
                for reader, writer in newcomers:
                    writer.write(GET)
                    assert await answered(reader) == 200
                assert await asyncio.wait_for(said(idle[0]), 20) == b""
                half[1].write(GET[20:])
                body[1].write(EVENT)
                assert (await answered(half[0]), await answered(body[0])) == (200, 202)

    async def test_when_all_are_worked_on_the_next_one_is_told_so(
        self, database_url: str, parser: dict[str, str], connection: Connection
    ) -> None:
        variables = {"PGQUEUE_HTTP_CONNECTIONS": "2", "PGQUEUE_REQUEST_TIMEOUT": "30s"}
        lock = "pgqueue_limit_lock('user.signin.notification', 'u1')"
        request = POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
        async with an_api(database_url, parser, variables) as api, calling(api, 2) as callers:
            await connection.execute(f"SELECT pg_advisory_lock({lock})")
            for _, writer in callers:
                writer.write(request)

            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                "wait_event_type = 'Lock'"
            )

            async def both_wait() -> bool:
                return bool(await value(connection, waits) == 2)

            await until(both_wait)
            async with calling(api) as [(reader, _)]:
                answer = await said(reader)
                assert b"Retry-After: 1\r\n" in answer
                assert problem_in(answer)["status"] == 503
            await connection.execute(f"SELECT pg_advisory_unlock({lock})")
            assert [await answered(reader) for reader, _ in callers] == [202, 202]
            assert await asked(api, GET) == 200


@contextlib.contextmanager
def room_for_files(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip("this machine allows too few open files for the test")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestAWorkersHealthPort:
    async def ask(self, port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        answer = await said(reader)
        writer.close()
        return answer

    async def test_a_crowd_that_sends_nothing_keeps_no_others_out(self) -> None:
        async with health_server(0, lambda: True) as port:
            assert port
            crowd = [
                (await asyncio.open_connection("127.0.0.1", port))[1]
                for _ in range(3 * MAX_CONNECTIONS)
            ]
            try:
                assert b"200 OK" in await self.ask(port, GET)
                assert b"200 OK" in await self.ask(port, GET.replace(b"healthz", b"readyz"))
                ours = psutil.Process().net_connections()
                held = [
                    one for one in ours if one.laddr.port == port and one.status == "ESTABLISHED"
                ]
                assert len(held) <= MAX_CONNECTIONS
            finally:
                for one in crowd:
                    one.close()

    @pytest.mark.parametrize(
        "request_", [b"GET /" + b"a" * HEAD, GET[:-2] + b"x: " + b"a" * HEAD, b"a: b\r\n" * HEAD]
    )
    async def test_what_is_too_long_is_told_so(self, request_: bytes) -> None:
        async with health_server(0, lambda: True) as port:
            assert port
            assert (await self.ask(port, request_)).startswith(b"HTTP/1.1 431")

    async def test_what_never_comes_is_not_waited_for(self) -> None:
        async with health_server(0, lambda: True, deadline=0.2) as port:
            assert port
            assert await asyncio.wait_for(self.ask(port, GET[:-2]), 10) == b""
