"""Declaring tasks, and finding them by the names of their modules."""

import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import msgspec
import pytest
from pgqueue_service.settings import ServiceSettings

from pgqueue import Backoff, Job, Limit, Task, task
from pgqueue.attempt import Claim
from pgqueue.discovery import load_tasks
from pgqueue.durations import duration, spoken
from pgqueue.errors import TaskError
from pgqueue.settings import settings_from


class Resize(msgspec.Struct):
    image: str


def test_a_task_is_callable_and_knows_its_payload() -> None:
    @task(
        "image.resize",
        queue="images",
        max_attempts=3,
        timeout="2m",
        rate_limit=Limit(10, per="1h"),
        depends_on="s3",
    )
    def resize(job: Job[Resize]) -> str:
        return job.payload.image

    assert isinstance(resize, Task)
    assert resize.payload_type is Resize
    assert resize.decode(b'{"image": "a.png"}') == Resize("a.png")
    claim = Claim(
        "0" * 32,
        1,
        "j",
        "image.resize",
        "u",
        1,
        3,
        b"{}",
        datetime(2026, 1, 1, tzinfo=UTC),
        "images",
    )
    assert resize(Job(Resize("a.png"), claim)) == "a.png"
    declared = resize.declaration(ServiceSettings())
    assert (declared.queue, declared.max_attempts, declared.timeout, declared.depends_on) == (
        "images",
        3,
        timedelta(minutes=2),
        "s3",
    )
    assert declared.limit == Limit(10, per="1h")


def test_without_an_annotation_the_payload_is_plain_json() -> None:
    @task("x")
    def handler(job): ...

    assert handler.decode(b'{"a": [1]}') == {"a": [1]}


def test_a_limit_may_come_from_the_settings() -> None:
    @task(
        "x",
        rate_limit=lambda settings: Limit(settings.signin_limit[0], per=settings.signin_limit[1]),
    )
    async def handler(job: Job[Any]) -> None: ...

    assert handler.declaration(
        settings_from({"PGQUEUE_SIGNIN_LIMIT": "3/1m"}, ServiceSettings)
    ).limit == Limit(3, per=timedelta(minutes=1))


@pytest.mark.parametrize(
    "arguments",
    [
        *({"max_attempts": number} for number in (0, 1001, 2.5, True, "5")),
        {"timeout": 0},
        {"timeout": "soon"},
        *(
            {name: text}
            for name in ("job_type", "queue", "depends_on", "user_from")
            for text in ("", "x" * 256, "a\0", "a\nb", "\ud800", 7)
        ),
        {"job_type": None},
        {"queue": None},
    ],
)
def test_a_declaration_that_cannot_work_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TaskError):

        @task(**({"job_type": "x"} | arguments))
        async def handler(job: Job[Any]) -> None: ...


def test_a_handler_takes_one_argument() -> None:
    with pytest.raises(TaskError, match="one argument"):

        @task("x")
        async def handler(job: Job[Any], more: int) -> None: ...


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Limit(0, per="1h"),
        lambda: Limit(1, per=0),
        lambda: Backoff(0),
        lambda: Backoff(10, cap=5),
    ],
)
def test_limits_and_backoffs_are_possible_ones(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not"):
        wrong()


def a_module(name: str, **members: Any) -> str:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return name


@pytest.fixture
def two_tasks() -> tuple[Any, Any]:
    @task("x")
    async def first(job: Job[Any]) -> None: ...

    @task("x")
    async def second(job: Job[Any]) -> None: ...

    return first, second


def test_tasks_are_found_in_the_modules_named(two_tasks: tuple[Any, Any]) -> None:
    first, _ = two_tasks
    name = a_module("tests_found", handler=first, other=7)
    tasks, homes = load_tasks([name, a_module("tests_imports_it", again=first)])
    assert tasks == {"x": first}
    assert homes["x"].__name__ == name


@pytest.mark.parametrize(
    ("named", "home"),
    [
        (["tests_importer", "tests_shop.jobs"], "tests_shop.jobs"),
        (["tests_importer", "tests_shop"], "tests_shop"),
        (["tests_shop", "tests_shop.jobs", "tests_importer"], "tests_shop.jobs"),
        (["tests_shop.job", "tests_importer"], "tests_shop.job"),
        (["tests_importer", "tests_shop.job"], "tests_importer"),
    ],
)
def test_a_task_is_at_home_where_it_is_declared_and_not_where_it_is_imported(
    two_tasks: tuple[Any, Any], named: list[str], home: str
) -> None:
    """A name that merely begins with the same letters is no package around it; where nobody is
    nearer, the first named counts."""
    first, _ = two_tasks
    first.handler.__module__ = "tests_shop.jobs"
    for name in named:
        a_module(name, handler=first)
    assert load_tasks(named)[1]["x"].__name__ == home


def test_a_type_declared_twice_is_a_start_error(two_tasks: tuple[Any, Any]) -> None:
    first, second = two_tasks
    with pytest.raises(TaskError, match="declared twice: in tests_one and in tests_two"):
        load_tasks([a_module("tests_one", handler=first), a_module("tests_two", handler=second)])


def test_a_module_without_tasks_is_a_start_error() -> None:
    with pytest.raises(TaskError, match="holds no task"):
        load_tasks([a_module("tests_empty")])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("1h", 3600),
        ("7d", 604800),
        ("500ms", 0.5),
        (1.5, 1.5),
        ("2", 2),
        (timedelta(days=1), 86400),
    ],
)
def test_durations(value: Any, seconds: float) -> None:
    assert duration(value).total_seconds() == seconds


@pytest.mark.parametrize(
    "value", ["", "soon", "1w", "-1s", -1, True, None, "1h30m", float("inf"), float("nan"), 1e30]
)
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(value)


@pytest.mark.parametrize("text", ["30s", "10m", "1h", "7d", "90s", "500ms"])
def test_durations_are_spoken_as_they_are_written(text: str) -> None:
    assert spoken(duration(text)) == text
