"""What only the blocking client has to stand: many threads, forks, and programs that end without
closing it."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from pgqueue import Client, Job, NewJob, Unavailable, task
from pgqueue.settings import Settings
from tests.support.both_clients import publish_now, value_now
from tests.support.places import ROOT


@task("test.job")
async def handler(job: Job[Any]) -> None: ...


@pytest.fixture
def ready(database_url: str, settings: Settings) -> Settings:
    publish_now(database_url, settings, handler)
    return settings


@pytest.fixture
def client(ready: Settings) -> Iterator[Client]:
    with Client.open(ready) as opened:
        yield opened


def count(settings: Settings) -> int:
    return int(value_now(settings.conninfo, "SELECT count(*) FROM job_logs"))


def test_many_threads_share_one_client(client: Client, ready: Settings) -> None:
    def request(number: int) -> str:
        ticket = client.enqueue(handler, {"n": number}, job_id=f"j{number}")
        return client.get(ticket.job_id).job_id

    with ThreadPoolExecutor(40) as threads:
        assert list(threads.map(request, range(400))) == [f"j{n}" for n in range(400)]
    assert count(ready) == 400


def test_threads_that_begin_together_open_one_pool(ready: Settings) -> None:
    client = Client.open(ready)
    together = threading.Barrier(20)

    def begin(_: int) -> int:
        together.wait(10)
        client.enqueue(handler, {})
        return id(client.pool)

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(begin, range(20)))) == 1
    client.close()


def test_more_threads_than_connections_wait_for_one(ready: Settings) -> None:
    with Client.open(ready.with_(pool_size=1)) as client, ThreadPoolExecutor(20) as threads:
        jobs = [threads.submit(client.enqueue, handler, {}) for _ in range(50)]
        assert all(job.result().created for job in jobs)


def in_child(client: Client, answers: Any) -> None:
    try:
        answers.put(client.enqueue(handler, {"pid": os.getpid()}).created)
        client.close()
    except Exception as error:  # noqa: BLE001 - the parent asserts what it is
        answers.put(repr(error))


def fork(client: Client) -> Any:
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    child = forking.Process(target=in_child, args=(client, answers))
    child.start()
    answer = answers.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0
    return answer


def test_a_client_made_before_a_fork_works_in_parent_and_child(
    client: Client, ready: Settings
) -> None:
    client.enqueue(handler, {})
    with client.pool.connection() as own:
        server_process = own.info.backend_pid
    for _ in range(2):
        assert fork(client) is True
        client.enqueue(handler, {})
    with client.pool.connection() as own:
        assert own.info.backend_pid == server_process, "the child ended no session of its parent"
    assert count(ready) == 5


def test_a_client_on_a_pool_of_the_application_says_that_it_does_not_survive_a_fork(
    ready: Settings,
) -> None:
    with ConnectionPool(ready.conninfo, open=True, kwargs={"autocommit": True}) as pool:
        client = Client.open(pool)
        client.enqueue(handler, {})
        assert "a pool does not survive a fork" in fork(client)
        client.enqueue(handler, {})
        client.close()


PROGRAM = """
from pgqueue import Client
client = Client.open({url!r})
client.enqueue("test.job", {{}})
{more}
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "client.enqueue('test.job', {})",
        "del client",
        "import sys; sys.exit(0)",
        "import os\nif not os.fork(): raise SystemExit\nos.wait(); client.enqueue('test.job', {})",
    ],
    ids=["ends", "rings", "drops it", "exits", "forks"],
)
def test_a_program_that_does_not_close_it_ends_in_silence(ready: Settings, more: str) -> None:
    program = PROGRAM.format(url=ready.database_url, more=more)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_without_a_database_hears_of_it_in_its_time() -> None:
    with Client.open("postgresql://nobody@127.0.0.1:1/none", timeout=0.2) as client:
        with pytest.raises(Unavailable, match="connection refused"):
            client.enqueue("test.job", {})
        with pytest.raises(Unavailable, match="connection refused"):
            client.enqueue_many([NewJob("test.job", {})])


def test_an_unopened_client_is_closed(ready: Settings) -> None:
    client = Client.open(ready)
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        client.stats()
