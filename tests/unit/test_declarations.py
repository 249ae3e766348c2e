"""`@task` refuses what cannot work, with the line and what to write instead; every kind of payload
type works."""

import dataclasses
import datetime as dt
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from psycopg import AsyncConnection

from pgqueue import Backoff, Job, Limit, task
from pgqueue.client import AsyncClient
from pgqueue.errors import InvalidJob, TaskError
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Task
from tests.support.factories import the_job
from tests.support.scene import published, until, working


class Renamed(msgspec.Struct, rename="camel"):
    user_id: str


class Plain:
    """Nothing can be read into it."""


class Holder(msgspec.Struct):
    inner: list[Plain]


def good(job: Job[Any]) -> None: ...


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "bare": (lambda: task(good), 'write @task("image.resize")'),  # type: ignore[call-overload,arg-type,unused-ignore]
    "backoff=5": (lambda: task("t", backoff=5)(good), "write backoff=Backoff(2, cap=3600)"),  # type: ignore[arg-type]
    "rate_limit=10": (lambda: task("t", rate_limit=10)(good), "write rate_limit=Limit(10"),  # type: ignore[arg-type]
    "rate_limit=Limit": (lambda: task("t", rate_limit=Limit)(good), "rate_limit is a Limit"),  # type: ignore[arg-type]
    "admin=1": (lambda: task("t", admin=1)(good), "admin is a bool"),  # type: ignore[arg-type]
    **{
        f"timeout={value!r}": (lambda value=value: task("t", timeout=value)(good), "timeout")
        for value in (0, -1, "abc", "", None, True, float("nan"), float("inf"), [])
    },
    **{
        f"max_attempts={value!r}": (
            lambda value=value: task("t", max_attempts=value)(good),
            "whole number from 1 to 1000",
        )
        for value in (0, 1001, True, "5", 2.5, None)
    },
    **{
        f"{name}={value!r:.20}": (
            lambda name=name, value=value: task(**{"job_type": "t", name: value})(good),
            said,
        )
        for name, said in (
            ("queue", "queue"),
            ("depends_on", "depends_on"),
            ("user_from", "user_from"),
            ("job_type", "job type"),
        )
        for value in (3, "", "x" * 256, "a\nb", "a\0b", "\ud800")
    },
    "no parameter": (lambda: task("t")(lambda: None), "takes one argument, the job"),  # type: ignore[arg-type,misc]
    "two parameters": (lambda: task("t")(lambda job, more: None), "takes one argument, the job"),  # type: ignore[arg-type,misc]
    "only by name": (lambda: task("t")(by_name), "takes one argument, the job"),  # type: ignore[arg-type]
    "a method": (lambda: task("t")(Methods.method), "takes one argument, the job"),  # type: ignore[arg-type]
    "a generator": (lambda: task("t")(generating), "nothing runs a generator"),
    "an async generator": (lambda: task("t")(generating_later), "nothing runs a generator"),
    "a class": (lambda: task("t")(Plain), "a handler is a function, not a class"),  # type: ignore[arg-type]
    "a text": (lambda: task("t")("handler"), "a handler is a function, not 'handler'"),  # type: ignore[arg-type]
    "a task": (lambda: task("t")(task("u")(good)), "is a task already"),
    "a class that is no payload": (
        lambda: task("t")(of(Job[Plain])),
        "its payload type Plain cannot be used",
    ),
    "one within": (lambda: task("t")(of(Job[Holder])), "its payload type Holder cannot be used"),
    "a function as payload": (lambda: task("t")(of(Job[Callable[[], int]])), "cannot be used"),
    "no Job": (lambda: task("t")(of(Renamed)), "write `job: Job[Renamed]`"),
    "an unknown name": (lambda: task("t")(of("Job[Nowhere]")), "name 'Nowhere' is not defined"),
    "no such member": (
        lambda: task("t", user_from="nosuch")(of(Job[Renamed])),
        "is no member of the payload, which has userId",
    ),
    "its name in Python": (
        lambda: task("t", user_from="user_id")(of(Job[Renamed])),
        "write user_from='userId'",
    ),
    "a payload without members": (
        lambda: task("t", user_from="u")(of(Job[list[int]])),
        "is no JSON object",
    ),
}


def by_name(*, job: Job[Any]) -> None: ...


def generating(job: Job[Any]) -> Any:
    yield


async def generating_later(job: Job[Any]) -> Any:
    yield


class Methods:
    def method(self, job: Job[Any]) -> None: ...


def of(annotation: Any) -> Any:
    def handler(job):  # type: ignore[no-untyped-def]
        ...

    handler.__annotations__ = {"job": annotation}
    return handler


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_declaration_is_refused_with_its_line(wrong: str) -> None:
    declare, sentence = WRONG[wrong]
    with pytest.raises(TaskError) as refused:
        declare()
    assert sentence in str(refused.value)
    assert "test_declarations.py:" in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_the_line_is_that_of_the_declaration() -> None:
    line = inspect.currentframe().f_lineno + 3  # type: ignore[union-attr]
    with pytest.raises(TaskError, match=f"test_declarations.py:{line}: t: timeout"):

        @task("t", timeout=0)
        async def handler(job: Job[Any]) -> None: ...


@pytest.mark.parametrize("wrong", [Limit, lambda settings: 10], ids=["a class", "a number"])
def test_a_limit_from_the_settings_is_a_limit(wrong: Any) -> None:
    with pytest.raises(TaskError, match="rate_limit"):
        task("t", rate_limit=wrong)(good).declaration(Settings())


@pytest.mark.parametrize("count", ["10", 2.5, True, 0, 1 << 31, None])
def test_a_limit_counts_whole_jobs(count: Any) -> None:
    with pytest.raises(ValueError, match="whole number of jobs"):
        Limit(count, per="1h")


def test_a_lambda_and_a_bound_method_are_handlers() -> None:
    assert isinstance(task("t", backoff=Backoff(5))(lambda job: None), Task)
    assert isinstance(task("t")(Methods().method), Task)


async def test_an_object_whose_call_is_async_is_awaited() -> None:
    class Handler:
        async def __call__(self, job: Job[Any]) -> None: ...

    assert task("t")(Handler()).is_async


class AStruct(msgspec.Struct, rename="camel"):
    user_name: str
    at: dt.date


@dataclasses.dataclass
class ADataclass:
    user_name: str
    at: dt.date


class ATypedDict(TypedDict):
    user_name: str
    at: dt.date


class ATuple(NamedTuple):
    user_name: str
    at: dt.date


class AModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    user_name: str = pydantic.Field(alias="userName")
    at: dt.date


class Around(msgspec.Struct):
    model: AModel


DAY = dt.date(2026, 1, 2)
PAYLOADS: list[tuple[Any, Any, Any]] = [
    (AStruct, AStruct("Ana", DAY), {"userName": "Ana", "at": "2026-01-02"}),
    (ADataclass, ADataclass("Ana", DAY), {"user_name": "Ana", "at": "2026-01-02"}),
    (ATypedDict, {"user_name": "Ana", "at": DAY}, {"user_name": "Ana", "at": "2026-01-02"}),
    (ATuple, ATuple("Ana", DAY), ["Ana", "2026-01-02"]),
    (AModel, AModel(userName="Ana", at=DAY), {"userName": "Ana", "at": "2026-01-02"}),
    (
        Around,
        Around(AModel(userName="Ana", at=DAY)),
        {"model": {"userName": "Ana", "at": "2026-01-02"}},
    ),
    (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
    (int, 7, 7),
    (str | None, None, None),
    (Any, {"a": [1.5]}, {"a": [1.5]}),
]


@pytest.mark.parametrize(
    ("kind", "payload", "stored"), PAYLOADS, ids=lambda value: getattr(value, "__name__", "")
)
async def test_a_payload_comes_to_its_handler_as_it_was_given(
    connection: AsyncConnection[Any], settings: Settings, kind: Any, payload: Any, stored: Any
) -> None:
    seen: list[Any] = []

    async def handler(job: Any) -> None:
        seen.append(job.payload)

    handler.__annotations__ = {"job": Job[kind]}
    one: Task[Any] = task("test.job")(handler)
    await published(connection, settings, one)
    async with AsyncClient.open(settings) as client, working(settings, one):
        await client.enqueue(one, payload, job_id="j")
        if kind is not Any:
            with pytest.raises(InvalidJob, match="does not fit"):
                await client.enqueue(one, {"wrong": True}, job_id="wrong")
        await client.enqueue_many([NewJob(one, payload, job_id="k")])
        await until(lambda: len(seen) == 2)
    assert seen == [payload] * 2
    assert type(seen[0]) is type(payload)
    assert (await the_job(connection, "j"))["payload"] == stored


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        (AStruct, "userName"),
        (ADataclass, "user_name"),
        (ATypedDict, "user_name"),
        (AModel, "userName"),
    ],
)
def test_the_user_is_named_by_a_member_of_any_of_them(kind: Any, member: str) -> None:
    assert task("t", user_from=member)(of(Job[kind])).user_from == member
    with pytest.raises(TaskError, match="is no member of the payload"):
        task("t", user_from="nosuch")(of(Job[kind]))
    assert task("t", user_from="anything")(of(Job[dict[str, Any]])).user_from == "anything"
