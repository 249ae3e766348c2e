"""The pytest plugin in the project of an application, without the conftest of this one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFTEST = """
import pytest
from shop import resize

@pytest.fixture(scope="session")
def pgqueue_tasks():
    return [resize]

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

SHOP = """
from pgqueue import Job, task

@task("image.resize")
async def resize(job: Job[dict[str, int]]) -> None:
    if job.payload["width"] == 0:
        raise RuntimeError("no width")
"""

TESTS = """
import pytest
from psycopg import connect
from shop import resize
from pgqueue import JobNotFound
from pgqueue.testing import advance, assert_enqueued, drain, run

def test_blocking(pgqueue_client, pgqueue_url):
    client = pgqueue_client
    assert run(resize, {"width": 1}).status == "completed"
    client.enqueue(resize, {"width": 1}, job_id="good", user_id="u")
    client.enqueue(resize, {"width": 0}, job_id="bad")
    (one,) = assert_enqueued(client, resize, {"width": 1}, user_id="u", count=1)
    assert one.job_id == "good"
    drain(client, resize)
    assert [client.get(name).status for name in ("good", "bad")] == ["completed", "failed"]
    advance(client, "bad")
    drain(client, resize)
    assert client.get("bad").attempt_count == 2
    assert_enqueued(client, resize, count=0, user_id="u")
    with pytest.raises(JobNotFound):
        advance(client, "good")
    with connect(pgqueue_url) as own:
        client.enqueue(resize, {"width": 2}, connection=own)
        assert_enqueued(client, "image.resize", {"width": 2}, connection=own)
        with pytest.raises(AssertionError, match="(?s)no job waits with .*'width': 2.*bad .failed"):
            assert_enqueued(client, resize, {"width": 2})
        own.rollback()

def test_each_test_has_a_database_of_its_own(pgqueue_client):
    with pytest.raises(AssertionError, match="Waiting: none"):
        assert_enqueued(pgqueue_client, resize)

@pytest.mark.anyio
async def test_awaiting(pgqueue_async_client):
    client = pgqueue_async_client
    assert (await run(resize, {"width": 0})).status == "failed"
    with pytest.raises(AttributeError, match="await run"):
        run(resize, {"width": 0}).status
    await client.enqueue(resize, {"width": 1}, job_id="good")
    assert len(await assert_enqueued(client, resize, count=1)) == 1
    await drain(client, resize)
    assert (await client.get("good")).status == "completed"
    with pytest.raises(JobNotFound):
        await advance(client, "good")
"""


def pytest_in(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    cleaned = {name: one for name, one in os.environ.items() if not name.startswith("PGQUEUE_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis",
         "-p", "no:xdist", *arguments],
        cwd=folder, env=cleaned | env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return tmp_path


@pytest.mark.parametrize("server", ["given", "embedded"])
def test_an_application_s_tests_have_databases_and_clients(
    shop: Path, pg_server: Any, server: str
) -> None:
    env = {"PGQUEUE_TEST_SERVER_URL": pg_server.url()} if server == "given" else {}
    done = pytest_in(shop, "-W", "error", **env)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_without_a_server_the_advice_is_given(shop: Path) -> None:
    (shop / "conftest.py").write_text(
        f"{CONFTEST}\nimport pgqueue.embedded.binaries as binaries\n"
        "def nothing(): raise RuntimeError('none here')\nbinaries.bindir = nothing\n"
    )
    done = pytest_in(shop, "-k", "test_blocking")
    assert done.returncode == 1
    assert "set pgqueue_server_url in pytest's configuration" in done.stdout


def test_a_run_that_does_not_use_it_does_not_import_pgqueue(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    assert 'pytest_pgqueue' in sys.modules\n"
        "    assert 'pgqueue' not in sys.modules\n"
    )
    done = pytest_in(tmp_path)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr
