"""`pgqueue api` as a process: its port, its signals, its family, and when it refuses to start."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import psutil
import pytest
from psycopg import AsyncConnection

from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer
from tests.support.api import SIGN_IN, SIGNIN, problem
from tests.support.factories import value
from tests.support.logins import url_of
from tests.support.scene import until

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]


def environment(database_url: str, **more: str) -> dict[str, str]:
    ours = {
        "DATABASE_URL": url_of("queue_api", database_url),
        "PORT": "0",
        "PGQUEUE_DRAIN": "0",
        "PGQUEUE_LOG_FORMAT": "json",
    }
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGQUEUE_", "MAIL_", "SMTP_"))
    }
    return inherited | ours | more


class Api:
    """A running `pgqueue api`, and what it said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "api.started":
                self.url = f"http://127.0.0.1:{self.lines[-1]['port']}"

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def ready(self, client: httpx.AsyncClient) -> None:
        async def answers() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(answers)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            code = await self.process.wait()
            await self._reader
        return code


async def registered(connection: Connection, count: int) -> bool:
    return bool(await value(connection, "SELECT count(*) FROM job_workers") == count)


@asynccontextmanager
async def running(*arguments: str, **variables: str) -> AsyncIterator[Api]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pgqueue.cli", "api", *arguments, env=variables, stderr=PIPE
    )
    api = Api(process)
    try:
        await until(lambda: bool(api.url))
        yield api
    finally:
        children = (
            psutil.Process(process.pid).children(recursive=True)
            if process.returncode is None
            else []
        )
        await api.end()
        assert not [
            child
            for child in children
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]


@asynccontextmanager
async def ready(*arguments: str, **variables: str) -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    async with (
        running(*arguments, **variables) as api,
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        await api.ready(client)
        yield api, client


async def refused(**variables: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pgqueue.cli", "api", env=variables, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(30):
        out, said = await process.communicate()
    assert out == b""
    assert process.returncode is not None
    return process.returncode, said.decode()


class TestTheStart:
    @pytest.mark.parametrize(
        ("variables", "sentence"),
        [
            ({"HOST": "0.0.0.0"}, "PGQUEUE_API_TOKENS is not set"),
            (
                {"HOST": "0.0.0.0", "PGQUEUE_OPEN": "on"},
                "PGQUEUE_OPEN is for development on loopback only",
            ),
            (
                {"PGQUEUE_OPEN": "on", "PGQUEUE_CORS_ORIGINS": "*"},
                "PGQUEUE_OPEN and PGQUEUE_CORS_ORIGINS=*",
            ),
            ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
            ({"PGQUEUE_APP": "no.such:app"}, "PGQUEUE_APP=no.such:app cannot be loaded"),
            (
                {"PGQUEUE_APP": "pgqueue_service.app"},
                "PGQUEUE_APP=pgqueue_service.app cannot be loaded",
            ),
            ({"PGQUEUE_DRAIN": "long"}, "PGQUEUE_DRAIN"),
            (
                {"HOST": "192.0.2.1", "PGQUEUE_API_TOKENS": "4c1f0e6d9b2a8375"},
                "cannot listen on 192.0.2.1",
            ),
        ],
    )
    async def test_it_is_refused_with_exit_2(
        self, database_url: str, variables: dict[str, str], sentence: str
    ) -> None:
        code, said = await refused(**environment(database_url) | variables)
        assert code == 2
        assert sentence in said
        assert "Traceback" not in said

    async def test_a_port_that_is_taken(self, database_url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, said = await refused(**environment(database_url, PORT=str(port)))
        assert (
            code,
            f"cannot listen on 127.0.0.1, port {port}: Address already in use" in said,
        ) == (2, True)

    async def test_it_says_where_and_what_is_open_once(self, database_url: str) -> None:
        async with ready("--processes", "2", **environment(database_url)) as (api, _):
            pass
        (started,) = api.said("api.started")
        assert "http://127.0.0.1:" in started["message"]
        notes = [line["message"] for line in api.said("api.note")]
        assert len(notes) == 2
        assert "sign-ins and job states are open without a token" in notes[0]
        assert "PGQUEUE_ADMIN_TOKENS is not set" in notes[1]

    async def test_without_a_database_it_waits_for_one(self) -> None:
        with EmbeddedServer({"fsync": "off"}) as server:
            await migrate(server.url())
            server.stop()
            variables = environment(server.url(), PGQUEUE_REQUEST_TIMEOUT="300ms")
            async with (
                running(**variables) as api,
                httpx.AsyncClient(base_url=api.url, timeout=30) as client,
            ):

                async def alive() -> bool:
                    try:
                        return (await client.get("/healthz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await until(alive)
                problem(await client.get("/readyz"), 503)
                response = await client.post(SIGNIN, json=SIGN_IN)
                assert problem(response, 503)["error"] == "Failed to enqueue job"
                assert response.headers["retry-after"] == "1"
                server.start()
                await api.ready(client)
                assert (await client.post(SIGNIN, json=SIGN_IN)).status_code == 202


class TestOnTheWire:
    async def test_ids_in_paths_are_as_they_were_sent(self, database_url: str) -> None:
        async with ready(**environment(database_url)) as (_, client):
            for job_id, path in (
                ("a/b", "a%2Fb"),
                ("..", "%2E%2e"),
                ("é %", "%C3%A9%20%25"),
                ("a?b", "a%3Fb"),
            ):
                assert (
                    await client.post(SIGNIN, json=SIGN_IN | {"jobId": job_id})
                ).status_code == 202
                host, port = client.base_url.host, client.base_url.port
                reader, writer = await asyncio.open_connection(host, port)
                # By hand: clients tidy paths up.
                writer.write(
                    (
                        f"GET /api/jobs/{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: "
                        "close\r\n\r\n"
                    ).encode()
                )
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                assert head.startswith(b"HTTP/1.1 200")
                assert json.loads(body)["jobId"] == job_id

    async def test_who_serves_is_nobodys_business(self, database_url: str) -> None:
        async with ready(**environment(database_url)) as (api, client):
            assert "server" not in (await client.get("/healthz")).headers
            await client.get("/api/jobs/someone@example.com")
        assert "someone" not in json.dumps(api.lines)

    async def test_forwarded_headers_are_not_believed(self, database_url: str) -> None:
        forwarded = {
            "X-Forwarded-Host": "127.0.0.1",
            "X-Forwarded-For": "127.0.0.1",
            "Host": "evil.example",
        }
        async with ready(**environment(database_url)) as (_, client):
            problem(await client.get("/api/jobs/x", headers=forwarded), 403)


class TestSigterm:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_it_ends_with_0_and_leaves_the_registry(
        self, database_url: str, connection: Connection, number: signal.Signals
    ) -> None:
        async with ready(**environment(database_url)) as (api, _):
            assert await value(connection, "SELECT count(*) FROM job_workers") == 1
            assert await api.end(number) == 0
        assert await value(connection, "SELECT count(*) FROM job_workers") == 0
        assert api.said("api.stopped")

    async def test_while_it_drains_it_is_unready_and_serves(self, database_url: str) -> None:
        async with ready(**environment(database_url, PGQUEUE_DRAIN="2s")) as (api, client):
            api.process.send_signal(signal.SIGTERM)
            await until(lambda: bool(api.said("api.stopping")))
            assert problem(await client.get("/readyz"), 503)["error"] == "The service is stopping"
            async with httpx.AsyncClient(base_url=api.url) as newcomer:
                assert (await newcomer.post(SIGNIN, json=SIGN_IN)).status_code == 202
            assert await api.process.wait() == 0

    async def test_running_requests_finish(self, database_url: str, connection: Connection) -> None:
        variables = environment(database_url, PGQUEUE_REQUEST_TIMEOUT="20s")
        lock = "pgqueue_limit_lock('user.signin.notification', 'u1')"
        async with ready(**variables) as (api, client):
            await connection.execute(f"SELECT pg_advisory_lock({lock})")
            request = asyncio.create_task(client.post(SIGNIN, json=SIGN_IN))
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                "wait_event_type = 'Lock'"
            )

            async def waiting() -> bool:
                return bool(await value(connection, waits) == 1)

            await until(waiting)
            api.process.send_signal(signal.SIGTERM)

            async def closed() -> bool:
                try:
                    _, writer = await asyncio.open_connection(
                        client.base_url.host, client.base_url.port
                    )
                except OSError:
                    return True
                writer.close()
                return False

            await until(closed)
            assert not request.done()
            await connection.execute(f"SELECT pg_advisory_unlock({lock})")
            assert (await request).status_code == 202
            assert await api.process.wait() == 0

    async def test_a_second_one_ends_it_at_once(self, database_url: str) -> None:
        async with ready(**environment(database_url, PGQUEUE_DRAIN="60s")) as (api, _):
            api.process.send_signal(signal.SIGTERM)
            await until(lambda: bool(api.said("api.stopping")))
            assert await api.end() == 1


class TestAFamily:
    async def test_100_simultaneous_sign_ins_of_one_user_are_ten(
        self, database_url: str, connection: Connection
    ) -> None:
        async with ready("--processes", "2", **environment(database_url)) as (_, client):
            await until(partial(registered, connection, 2))
            answers = await asyncio.gather(*(client.post(SIGNIN, json=SIGN_IN) for _ in range(100)))
        codes = [answer.status_code for answer in answers]
        assert (codes.count(202), codes.count(429)) == (10, 90)
        assert all(
            int(answer.headers["retry-after"]) > 3500
            for answer in answers
            if answer.status_code == 429
        )
        assert await value(connection, "SELECT count(*) FROM job_logs") == 10

    async def test_a_child_that_dies_is_replaced(self, database_url: str) -> None:
        async with ready("--processes", "2", **environment(database_url)) as (api, client):
            parent = psutil.Process(api.process.pid)
            first = {child.pid for child in parent.children()}
            assert len(first) == 2
            victim = min(first)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len({child.pid for child in parent.children()} - first) == 1)
            assert "ended with code -9" in api.said("api.died")[0]["message"]
            await api.ready(client)

    async def test_children_end_when_the_parent_is_killed(self, database_url: str) -> None:
        async with ready("--processes", "2", **environment(database_url)) as (api, _):
            children = psutil.Process(api.process.pid).children()
            api.process.kill()
            await until(
                lambda: (
                    not any(
                        child.is_running() and child.status() != psutil.STATUS_ZOMBIE
                        for child in children
                    )
                )
            )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_it_ends_as_one(
        self, database_url: str, connection: Connection, number: signal.Signals
    ) -> None:
        async with ready("--processes", "2", **environment(database_url)) as (api, _):
            await until(partial(registered, connection, 2))
            assert await api.end(number) == 0
            assert len(api.said("api.stopping")) == 2
