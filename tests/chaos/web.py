"""The HTTP service as a process with a login of its own, and callers that keep every answer."""

import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.chaos.fleet import TIMES, now
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import span
from tests.support.processes import ROOT, env
from tests.support.scene import until

PATIENCE = 2.0
"""Seconds that an enqueue may wait for a connection (PGQUEUE_REQUEST_TIMEOUT)."""

MARGIN = 1.5
"""Seconds in which a connection that has become possible can be made and used, on a busy
machine."""


JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    sent: datetime
    took: float
    code: int
    """0: none came."""
    said: str


class Outage(NamedTuple):
    """No connection to the database could be made from `struck` on until `back`."""

    struck: datetime
    back: datetime


class Refusal(NamedTuple):
    code: int
    took: float
    left: float
    """Seconds that the call had left when a connection could be made (all of them: one could
    before)."""
    said: str


def refused_needlessly(answers: Iterable[Answer], outages: Sequence[Outage]) -> list[Refusal]:
    """What was answered with no 2xx, although the call had time left when a connection could be
    made, or at once, as if there were no use in waiting."""

    def left(answer: Answer) -> float:
        end = answer.sent + timedelta(seconds=PATIENCE)
        backs = [one.back for one in outages if one.struck < end]
        return min([PATIENCE, *((end - back).total_seconds() for back in backs)])

    refused = [
        Refusal(one.code, round(one.took, 3), round(left(one), 3), one.said[:200])
        for one in answers
        if not 200 <= one.code < 300
    ]
    return [
        one for one in refused if one.code != 503 or one.left > MARGIN or one.took < PATIENCE / 2
    ]


class Callers:
    """Calls of the API, by one client with as many connections as it takes. Accepted ids are in the
    books."""

    def __init__(self, site: Site, http: httpx.AsyncClient, job_type: str = "chaos.work") -> None:
        self.answers: list[Answer] = []
        self.http = http
        self.job_type = job_type
        self.payload: dict[str, Any] = {"seconds": 0.01}
        self._book = Book(site.accepted / f"callers-{secrets.token_hex(4)}")
        self._number = 0

    async def post(self, *, own_id: bool = True) -> Answer:
        self._number += 1
        job_id = f"call-{self._number}"
        body: dict[str, Any] = {"type": self.job_type, "payload": self.payload}
        answer = await self._call("POST", "/api/jobs", body | ({"jobId": job_id} if own_id else {}))
        if answer.code == 202:
            self._book.write(json.loads(answer.said)["jobId"])
        return answer

    async def send(self, body: Any) -> Answer:
        """Whatever it is; it is in no book."""
        return await self._call("POST", "/api/jobs", body)

    async def get(self, path: str) -> Answer:
        return await self._call("GET", path)

    async def burst(self, number: int) -> list[Answer]:
        """So many at once: two thirds POSTs, half of these with ids of their own, the rest reads of
        the first job."""

        def a_call(turn: int) -> Awaitable[Answer]:
            return self.post(own_id=turn % 2 > 0) if turn % 3 else self.get("/api/jobs/call-1")

        if not self._number:
            await self.post()
        return list(await asyncio.gather(*map(a_call, range(number)), self.get("/readyz")))

    @asynccontextmanager
    async def calling(self, rate: float) -> AsyncIterator[None]:
        """So many POSTs a second, whatever becomes of those before, while the block runs; all are
        answered at its end."""
        stopped = asyncio.Event()

        async def call() -> None:
            async with asyncio.TaskGroup() as calls:
                while not stopped.is_set():
                    calls.create_task(self.post())
                    await span(1 / rate)

        task = asyncio.create_task(call())
        try:
            yield
        finally:
            stopped.set()
            await task

    @property
    def codes(self) -> dict[str, int]:
        return {
            str(code): number
            for code, number in sorted(Counter(one.code for one in self.answers).items())
        }

    def slowest_after(self, outages: Iterable[Outage]) -> float:
        """The longest from when a connection could be made, or from the call if that was later, to
        the answer."""
        backs = [one.back for one in outages]
        return max(
            one.took
            - max(
                [
                    0.0,
                    *(
                        (back - one.sent).total_seconds()
                        for back in backs
                        if one.sent < back < _end(one)
                    ),
                ]
            )
            for one in self.answers
        )

    async def _call(self, method: str, path: str, body: Any = None) -> Answer:
        sent, began = now(), time.monotonic()
        content = None if body is None else json.dumps(body).encode()
        try:
            response = await self.http.request(method, path, content=content, headers=JSON)
            code, said = response.status_code, response.text
        except httpx.TransportError as error:
            code, said = 0, repr(error)
        self.answers.append(Answer(sent, time.monotonic() - began, code, said))
        return self.answers[-1]


def _end(answer: Answer) -> datetime:
    return answer.sent + timedelta(seconds=answer.took)


class Api:
    """A running `pgqueue api`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, callers: Callers) -> None:
        self.process = process
        self.log = log
        self.callers = callers

    async def stop(self, deadlines: float = 40) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), deadlines)


@asynccontextmanager
async def an_api(
    site: Site, *, address: str | None = None, **environment: str
) -> AsyncIterator[Api]:
    """One API process, ready, every route open to its callers; killed at the end if it still
    runs."""
    login, token = site.login("pgqueue_operator", address), secrets.token_urlsafe(32)
    log = site.folder / f"{login.name}-api.log"
    mine = {
        "PORT": "0",
        "PGQUEUE_DRAIN": "0",
        "PGQUEUE_LOG_LEVEL": "info",
        "PGQUEUE_ADMIN_TOKENS": token,
    }
    variables = env(login.url, site.effects, TIMES | mine | environment)
    command = [sys.executable, "-m", "pgqueue.cli", "api"]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=variables, stderr=file
        )
    try:
        await until(lambda: process.returncode is not None or _port(log) > 0, 60, "the API's start")
        assert process.returncode is None, log.read_text()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{_port(log)}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
            limits=httpx.Limits(max_connections=None),
        ) as http:
            yield Api(process, log, Callers(site, http))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _port(log: Path) -> int:
    """0 until it listens."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.endswith("}"))
    return next((int(line["port"]) for line in lines if line.get("event") == "api.started"), 0)
