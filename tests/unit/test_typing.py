"""A type checker tells callers which payload goes with which task: mypy and, where it is installed
(`pip install -e ".[pyright]"`), basedpyright as pyright. Both strict."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.places import ROOT

SNIPPET = """
import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from psycopg import AsyncConnection, Connection

from pgqueue import AsyncClient, Client, Job, NewJob, Settings, ThreadJob, Ticket, Worker, task
from pgqueue.testing import advance, assert_enqueued, drain, run


class Resize(msgspec.Struct):
    image: str


class Resources:
    name = "images"


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncGenerator[Resources, None]:
    yield Resources()


@task("image.resize")
async def resize(job: Job[Resize]) -> None:
    await job.progress(0.5)
    print(job.payload.image, job.resources)
    print(job.payload.nonsense)  # wrong


@task("image.turn")
async def turn(job: Job[Resize, Resources]) -> str:
    print(job.resources.nonsense)  # wrong
    async with job.transaction() as connection:
        await connection.execute("SELECT 1")
    return job.resources.name


@task("image.cut")
def cut(job: ThreadJob[Resize, Resources]) -> None:
    job.progress(0.5, "half")
    job.intend()
    with job.transaction() as connection:
        connection.execute("SELECT 1")
    print(job.resources.name.upper())
    print(job.resources.nonsense)  # wrong


@task("anything")
async def anything(job: Job[Any]) -> None:
    job.payload.nonsense


async def produce(client: AsyncClient, name: str, mine: AsyncConnection[Any]) -> Ticket:
    await client.enqueue(resize, "nonsense")  # wrong
    await client.enqueue(resize, {"image": "a.png"})  # wrong
    await client.enqueue(turn, "nonsense")  # wrong
    await client.enqueue(7, {})  # wrong
    await client.enqueue(resize, Resize("a.png"), priority="high")  # wrong
    await client.enqueue(resize, Resize("a.png"), nonsense=1)  # wrong
    await client.enqueue(anything, "nonsense")
    await client.enqueue(name, "nonsense", delay="30s", connection=mine)
    await client.try_enqueue(NewJob(resize, "nonsense"))  # wrong
    await client.try_enqueue(NewJob(7, "nonsense"))  # wrong
    three = [NewJob(resize, Resize("a.png")), NewJob(name, 7), NewJob(anything, None)]
    await client.enqueue_many(three)
    await client.enqueue_many([NewJob(resize, "nonsense")])  # wrong
    several = [NewJob(resize, Resize("a.png")), NewJob(name, 7), NewJob(cut, Resize("a.png"))]
    await client.enqueue_many(several)
    print((await client.stats()).dlq + 1)
    print((await client.stats()).nonsense)  # wrong
    return await client.enqueue(resize, Resize("a.png"), job_id="img-1", priority=3)


def block(name: str, mine: Connection[Any], other: AsyncConnection[Any]) -> Ticket:
    with Client.open("postgresql://") as client:
        client.enqueue(cut, "nonsense")  # wrong
        client.enqueue(cut, Resize("a.png"), nonsense=1)  # wrong
        client.enqueue(name, "nonsense", connection=mine)
        client.enqueue(name, "nonsense", connection=other)  # wrong
        client.enqueue_many([NewJob(cut, Resize("a.png")), NewJob(name, 7)], connection=mine)
        print((client.stats().recent_p99_s or 0) + 1)
        return client.enqueue(cut, Resize("a.png"), job_id="img-1", user_id="u1")


async def work(settings: Settings) -> None:
    worker = Worker(settings, tasks=[resize, turn, cut, anything], lifespan=lifespan)
    Worker(settings, tasks=["image.resize"])  # wrong
    running = asyncio.create_task(worker.run())
    worker.stop()
    await running


async def test_awaiting(client: AsyncClient) -> None:
    print((await run(resize, Resize("a.png"))).status.ended)
    await drain(client, resize, cut)
    await advance(client, "img-1")
    print((await assert_enqueued(client, resize, count=1))[0].job_id)


def test_blocking(client: Client) -> None:
    print(run(resize, Resize("a.png")).status.ended)
    drain(client, resize, cut)
    advance(client, "img-1")
    print(assert_enqueued(client, resize, Resize("a.png"))[0].job_id)
"""

WRONG = {number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")}


def test_mypy_refuses_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(snippet)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = {int(line) for line in re.findall(r"snippet\.py:(\d+): error", done.stdout)}
    assert told == WRONG, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("basedpyright") is None, reason='needs the extra "pyright"')
def test_pyright_refuses_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    config = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)["generalDiagnostics"]
    errors = [one for one in told if one["severity"] == "error"]
    lines = {one["range"]["start"]["line"] + 1 for one in errors}
    assert lines == WRONG, [(one["range"]["start"]["line"] + 1, one["message"]) for one in errors]
