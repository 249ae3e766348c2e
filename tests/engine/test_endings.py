"""Whatever a handler comes to: its attempt ends, the slot comes back, neighbours go on, and the
worker stops when it is told to."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import DependencyDown, Discard, LeaseLost, Retry, Snooze
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from tests.support.factories import the_job
from tests.support.scene import published, until, working

Connection = AsyncConnection[Any]


def raises(make: Callable[[], BaseException]) -> Callable[[Job[Any]], None]:
    def handler(job: Job[Any]) -> None:
        raise make()

    return handler


def leaves(value: Any) -> Callable[[Job[Any]], None]:
    def handler(job: Job[Any]) -> None:
        job.receipt = value

    return handler


def speaks(error: BaseException) -> type[Exception]:
    class Speaking(Exception):
        def __str__(self) -> str:
            raise error

        __repr__ = __str__

    return Speaking


class Forgetful(Exception):
    """Put before Retry, Snooze, ... : it does not call their __init__."""

    def __init__(self) -> None:
        Exception.__init__(self, "mine")


class MyRetry(Forgetful, Retry): ...


class MySnooze(Forgetful, Snooze): ...


class MyDown(Forgetful, DependencyDown): ...


class MyDiscard(Forgetful, Discard): ...


class Properties(Exception):
    """Every attribute that a report reads fails."""

    @property
    def broken(self) -> Any:
        raise SystemExit(3)

    __cause__ = __context__ = __traceback__ = __notes__ = __suppress_context__ = broken  # type: ignore[assignment]


class NotEvenItsClass(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


class OddText(str):
    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("not mine")

    __format__ = __getitem__  # type: ignore[assignment]


class SaysOddly(Exception):
    def __str__(self) -> str:
        return OddText("odd")


def odd_syntax_error() -> SyntaxError:
    error = SyntaxError("bad")
    error.lineno, error.offset, error.text, error.filename = "x", object(), b"\0", 7  # type: ignore[assignment]
    error.end_lineno = error.end_offset = [1]  # type: ignore[assignment]
    return error


def chained(count: int, *, cyclic: bool = False) -> Exception:
    first = last = ValueError("0")
    for number in range(1, count):
        error = ValueError(str(number))
        error.__cause__, last = last, error
    if cyclic:
        first.__cause__ = last
    return last


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("g", [error] * 20)
    return error


def noted(*notes: Any) -> Exception:
    error = ValueError("noted")
    error.__notes__ = notes[0] if len(notes) == 1 else list(notes)
    return error


def with_(error: Exception, **attributes: Any) -> Exception:
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def endless(job: Job[Any]) -> None:
    endless(job)


FAILED, ENQUEUED, DLQ, COMPLETED = "failed", "enqueued", "dlq", "completed"
Ending = tuple[Callable[[Job[Any]], Any], str, str]

ENDINGS: dict[str, Ending] = {
    # What a dependency may be called.
    "NUL in the dependency": (raises(lambda: DependencyDown("x\0")), ENQUEUED, "x� is down"),
    "half a character in the dependency": (
        raises(lambda: DependencyDown("x\ud800")),
        ENQUEUED,
        "x� is down",
    ),
    "10 MB of dependency": (raises(lambda: DependencyDown("x" * 10_000_000)), ENQUEUED, "xxx"),
    "a number as dependency": (raises(lambda: DependencyDown(7)), FAILED, "names no dependency"),  # type: ignore[arg-type]
    "no dependency": (raises(lambda: DependencyDown("")), FAILED, "names no dependency"),
    "a dependency with an odd text": (
        raises(lambda: DependencyDown("smtp", OddText("odd"))),
        ENQUEUED,
        "odd",
    ),
    # Delays.
    **{
        f"Snooze({delay!r})": (raises(functools.partial(Snooze, delay)), FAILED, "ValueError: ")  # type: ignore[arg-type]
        for delay in (float("inf"), float("nan"), -1, 1e300, "soon", None, True)
    },
    **{
        f"Retry(after={delay!r})": (
            raises(functools.partial(Retry, "x", after=delay)),
            FAILED,
            "ValueError: ",
        )
        for delay in (float("inf"), float("nan"), -1, 1e300, "soon", True)
    },
    "Retry(after=0)": (raises(lambda: Retry("x", after=0)), FAILED, "x"),
    "Retry in a hundred years": (raises(lambda: Retry("x", after="36500d")), FAILED, "x"),
    "Snooze for a hundred years": (raises(lambda: Snooze("36500d")), ENQUEUED, ""),
    "a Snooze whose delay was changed": (
        raises(lambda: with_(Snooze(1), delay=timedelta.max)),
        FAILED,
        "without a delay",
    ),
    "a Retry whose delay was changed": (
        raises(lambda: with_(Retry(), after="later")),
        FAILED,
        "its `after` is not",
    ),
    "a Snooze whose reason is no text": (
        raises(lambda: Snooze(60, {"a": 1})),
        ENQUEUED,
        "{'a': 1}",
    ),  # type: ignore[arg-type]
    "a Snooze whose reason is NUL": (raises(lambda: Snooze(60, "a\0b\ud800")), ENQUEUED, "a�b�"),
    # Classes of one's own.
    "a Retry that forgot super()": (raises(MyRetry), FAILED, "mine"),
    "a Snooze that forgot super()": (raises(MySnooze), FAILED, "without a delay"),
    "a DependencyDown that forgot super()": (raises(MyDown), FAILED, "names no dependency"),
    "a Discard that forgot super()": (raises(MyDiscard), DLQ, "mine"),
    "an exception without a name": (
        raises(lambda: type("", (Exception,), {})("x")),
        FAILED,
        "without a name): x",
    ),
    "a name of 1 MB": (raises(lambda: type("n" * 1_000_000, (Exception,), {})("x")), FAILED, "nnn"),
    "a lease that was not lost": (
        raises(lambda: LeaseLost("not true")),
        FAILED,
        "LeaseLost: not true",
    ),
    # Texts.
    **{
        f"str() raises {error!r}": (
            raises(speaks(error)),
            FAILED,
            "Speaking: (its text cannot be read)",
        )
        for error in (
            RuntimeError(),
            KeyboardInterrupt(),
            SystemExit(1),
            GeneratorExit(),
            asyncio.CancelledError(),
        )
    },
    "100 MB of text": (raises(lambda: ValueError("x" * 100_000_000)), FAILED, "ValueError: xxx"),
    "a text of a class of its own": (raises(SaysOddly), FAILED, "SaysOddly: odd"),
    "NUL and half a character": (
        raises(lambda: ValueError("a\0b\ud800")),
        FAILED,
        "ValueError: a�b�",
    ),
    # What a report reads.
    "a syntax error with odd fields": (raises(odd_syntax_error), FAILED, "SyntaxError"),
    "attributes that raise": (raises(Properties), FAILED, "Properties"),
    "a class that raises": (raises(NotEvenItsClass), FAILED, "NotEvenItsClass"),
    "a chain of 100,000": (raises(lambda: chained(100_000)), FAILED, "ValueError: 99999"),
    "a chain in a circle": (raises(lambda: chained(3, cyclic=True)), FAILED, "ValueError: 2"),
    "groups 500 deep": (raises(lambda: nested(500)), FAILED, "ExceptionGroup: g"),
    "notes that are none": (raises(lambda: noted(7)), FAILED, "ValueError: noted"),
    "notes of 100 MB": (
        raises(lambda: noted("x" * 100_000_000, object(), speaks(SystemExit())())),
        FAILED,
        "noted",
    ),
    "an endless recursion": (endless, FAILED, "RecursionError"),
    # Receipts.
    "a receipt that cannot be read": (
        leaves(speaks(KeyboardInterrupt())()),
        COMPLETED,
        "(its text cannot be read)",
    ),
    "a receipt of 100 MB": (leaves("x" * 100_000_000), COMPLETED, "xxx"),
    "a receipt that is no text": (leaves({"a": [1]}), COMPLETED, "{'a': [1]}"),
    "a receipt with NUL": (leaves("a\0b\ud800"), COMPLETED, "a�b�"),
    "no receipt at all": (lambda job: delattr(job, "receipt"), COMPLETED, ""),
}


def of_kind(kind: str, do: Callable[[Job[Any]], Any]) -> Task[Any]:
    @task("test.ending", max_attempts=3)
    async def later(job: Job[Any]) -> None:
        do(job)

    @task("test.ending", max_attempts=3)
    def plain(job: Job[Any]) -> None:
        do(job)

    return later if kind == "async" else plain


@task("test.neighbour")
async def neighbour(job: Job[Any]) -> None:
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_every_attempt_ends_and_harms_no_other(
    connection: Connection, settings: Settings, ending: str, kind: str
) -> None:
    do, status, said = ENDINGS[ending]
    handler = of_kind(kind, do)
    row = await beside_neighbours(connection, settings, handler)
    assert row["status"] == status
    assert said in (row["error"] or row["receipt"] or "")
    assert row["attempt_count"] == (0 if status == ENQUEUED else 1)


async def beside_neighbours(
    connection: Connection,
    settings: Settings,
    handler: Task[Any],
    ended: Callable[[Any], bool] | None = None,
) -> dict[str, Any]:
    """One job among others through a real worker, until all have ended. Its row."""
    await published(connection, settings, handler, neighbour)
    queues = {"default": 4}
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(queues=queues), handler, neighbour) as worker,
    ):
        jobs = [NewJob(neighbour, {}, f"n{number}") for number in range(10)]
        await client.enqueue_many([*jobs[:5], NewJob(handler, {}, "j"), *jobs[5:]])
        await until(lambda: over(connection), 60)
        await client.enqueue(neighbour, {}, job_id="n10")
        await until(lambda: count(connection, 11, "job_id LIKE 'n%' AND status = 'completed'"))
        await until(lambda: not worker.inflight.attempts and worker.inflight.free("default") == 4)
        assert worker.healthy
        told = time.monotonic()
    assert time.monotonic() - told < 10, "it was told to stop, and had nothing left to do"
    return await the_job(connection, "j")


async def over(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return row["lease"] > 0 and row["status"] != "processing"


async def count(connection: Connection, wanted: int, where: str) -> bool:
    cursor = await connection.execute(f"SELECT count(*) FROM job_logs WHERE {where}")  # type: ignore[arg-type]
    return await cursor.fetchone() == (wanted,)


async def test_a_snooze_is_at_least_a_second(connection: Connection, settings: Settings) -> None:
    row = await beside_neighbours(connection, settings, of_kind("async", raises(lambda: Snooze(0))))
    assert row["run_after"] - row["started_at"] >= timedelta(seconds=1)


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_handler_has_a_context_of_its_own(
    connection: Connection, settings: Settings, kind: str
) -> None:
    seen: list[str] = []
    variable = contextvars.ContextVar("variable", default="untouched")

    def do(job: Job[Any]) -> None:
        seen.append(variable.get())
        variable.set(job.job_id)

    handler = of_kind(kind, do)
    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(queues={"default": 1}), handler),
    ):
        for number in range(3):
            await client.enqueue(handler, {}, job_id=f"j{number}")
        await until(lambda: count(connection, 3, "status = 'completed'"))
    assert seen == ["untouched"] * 3


@pytest.mark.parametrize(
    ("fraction", "note", "error"),
    [
        (True, None, "TypeError"),
        ("0.5", None, "TypeError"),
        (None, None, "TypeError"),
        (float("nan"), None, "ValueError"),
        (float("inf"), None, "ValueError"),
        (-1, None, "ValueError"),
        (2, None, "ValueError"),
        (10**400, None, "ValueError"),
        (0.5, 7, "TypeError"),
    ],
)
async def test_a_progress_that_is_none_is_refused_with_the_reason(
    connection: Connection, settings: Settings, fraction: Any, note: Any, error: str
) -> None:
    @task("test.ending")
    async def handler(job: Job[Any]) -> None:
        await job.progress(fraction, note)

    row = await beside_neighbours(connection, settings, handler)
    assert row["status"] == FAILED
    assert row["error"].startswith(f"{error}: ")
    assert "progress" in row["error"]


@pytest.mark.parametrize(
    ("note", "stored"),
    [
        ("a\0b", "a�b"),
        ("\ud800", "�"),
        (OddText("odd"), "odd"),
        ("x" * 10_000_000, "x" * 999 + "…"),
        ("ana.maria@b.mn", "a***@b.mn"),
    ],
    ids=["NUL", "half a character", "a text of a class of its own", "10 MB", "an address"],
)
async def test_a_progress_is_cleaned(
    connection: Connection, settings: Settings, note: str, stored: str
) -> None:
    @task("test.ending")
    async def handler(job: Job[Any]) -> None:
        await job.progress(0, note)

    row = await beside_neighbours(connection, settings, handler)
    assert (row["status"], row["progress"], row["progress_note"]) == (COMPLETED, 0, stored)


async def nothing(job: Job[Any]) -> None: ...


def generated(job: Job[Any]) -> Any:
    yield 1


@pytest.mark.parametrize(
    "forgotten",
    [lambda job: nothing(job), lambda job: generated(job)],
    ids=["coroutine", "generator"],
)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_work_that_was_only_made_and_not_done_has_failed(
    connection: Connection, settings: Settings, forgotten: Any, kind: str
) -> None:
    @task("test.ending")
    async def later(job: Job[Any]) -> Any:
        return forgotten(job)

    @task("test.ending")
    def plain(job: Job[Any]) -> Any:
        return forgotten(job)

    row = await beside_neighbours(connection, settings, later if kind == "async" else plain)
    assert row["status"] == FAILED
    assert "nothing runs it" in row["error"]


async def test_a_handler_that_ignores_its_timeout_for_ever_holds_no_slot(
    connection: Connection, settings: Settings
) -> None:
    done = asyncio.Event()

    @task("test.ending", timeout=0.1)
    async def handler(job: Job[Any]) -> None:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue

    row = await beside_neighbours(connection, settings, handler)
    done.set()
    assert row["status"] == FAILED
    assert row["error"] == "timed out after 0.1 s, and goes on although it was cancelled"


async def test_a_handler_cannot_cancel_its_neighbours(
    connection: Connection, settings: Settings
) -> None:
    """Nor the worker's loops; its own subtasks it can."""
    ended: list[bool] = []

    @task("test.ending")
    async def handler(job: Job[Any]) -> None:
        mine = asyncio.create_task(asyncio.Event().wait())
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            if type(one).__name__ == "OwnTask" or one is mine:
                one.cancel()
        await asyncio.wait([mine])
        ended.append(mine.cancelled())

    row = await beside_neighbours(connection, settings, handler)
    assert (row["status"], ended) == (COMPLETED, [True])
