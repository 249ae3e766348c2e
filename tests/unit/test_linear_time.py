"""No text stops a process: what reads foreign text takes a time in proportion to it, and can be
killed if it does not."""

import ast
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.masking import ADDRESS, clean
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.support.api import ADMIN, SIGN_IN, SIGNIN, open_api
from tests.support.factories import sql
from tests.support.patterns import BOUND, Measurer, parsers, patterns
from tests.support.places import ROOT
from tests.support.scene import published, until, working

MEASURED_WITHIN_SECONDS = 90
"""After which a process that measures is killed."""

MADE_IN_FUNCTIONS = {
    "pgqueue/known_secrets.py",
    "service/pgqueue_service/notifications/mail/transports/endings.py",
    "service/pgqueue_service/notifications/mail/transports/words.py",
}
"""The first two make patterns from re.escape, literal texts in which nothing repeats; the last one
those of its constants."""


def test_no_pattern_hides_in_a_function() -> None:
    """One that is compiled where it is used would not be found, and not be measured below."""
    hidden = []
    for path in [*ROOT.glob("pgqueue/**/*.py"), *ROOT.glob("service/**/*.py")]:
        tree = ast.parse(path.read_text())
        at_top = {
            id(inner) for one in tree.body if isinstance(one, ast.Assign) for inner in ast.walk(one)
        }
        hidden += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).startswith("re.")
            and ast.unparse(node.func) not in ("re.escape",)
            and not (id(node) in at_top and ast.unparse(node.func) == "re.compile")
            and path.relative_to(ROOT).as_posix() not in MADE_IN_FUNCTIONS
        ]
    assert hidden == []


@pytest.fixture(scope="module")
def measurer() -> Iterator[Measurer]:
    made = Measurer()
    yield made
    made.close()


@pytest.mark.parametrize("name", [*sorted(patterns()), *parsers()])
def test_it_takes_as_long_as_the_text(name: str, measurer: Measurer) -> None:
    """Every pattern that any module has, and what reads foreign texts by several or by none."""
    seconds, text = measurer.measure(name, MEASURED_WITHIN_SECONDS)
    assert seconds <= BOUND, f"{seconds:.3f} s for {text!r}"


def test_a_pattern_that_takes_for_ever_is_named_and_the_next_one_measured(
    measurer: Measurer,
) -> None:
    with pytest.raises(
        TimeoutError, match=r"^tests\.unit\.test_linear_time\.AS_IT_WAS took longer"
    ):
        measurer.measure("tests.unit.test_linear_time.AS_IT_WAS", 2)
    assert measurer.measure("duration", MEASURED_WITHIN_SECONDS)[0] <= BOUND


AS_IT_WAS = re.compile(
    r"""[^\s<>"(),:;\[\]@\\]{1,64}@(?:[^\s<>"'(),:;\[\]@=/\\]+\.)+[^\s<>"'(),:;\[\]@=/\\.]+"""
)
"""Exponential, and right."""


def test_the_linear_pattern_finds_the_same_addresses() -> None:
    chance = random.Random(7)
    parts = [*".@@.ab-=/'\" :,<>()[]\\\n", "x.mn", "a@b.c", "..", "example.com", "жишээ"]
    for _ in range(60_000):
        text = "".join(chance.choices(parts, k=chance.randint(1, 16)))
        assert [one.span() for one in ADDRESS.finditer(text)] == [
            one.span() for one in AS_IT_WAS.finditer(text)
        ], text


@pytest.mark.parametrize("length", [1_900, 2_000, 9_000, 12_000, 12_096, 12_100, 40_000])
@pytest.mark.parametrize("keep", ["start", "end"])
@pytest.mark.parametrize(
    ("before", "secret", "after"),
    [
        ("to ", "ana.maria.of.a.long.name", "@mail.example.com not"),
        ("at postgresql://bob:", "hunter2-hunter2-hunter2-hunter2", "@db.internal/x and"),
        ("password='", "hunter2 hunter2 hunter2", "' and"),
        ("password=", "hunter2-hunter2-hunter2", " and"),
    ],
)
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(
    length: int, keep: Any, before: str, secret: str, after: str
) -> None:
    """What it cuts at is moved over every character of the secret, among so many others that
    masking makes the text short."""
    # Each of these becomes a seventh of its length: what stood at the cut comes into sight.
    filling = f"{'a' * 60}@b.mn \n" * (length // 67 + 1)
    for shift in range(0, len(before + secret + after), 3):
        filled = filling[: max(0, length - shift)]
        kept = clean(filled + before + secret + after + filling, 2_000, keep=keep)
        kept += clean(filling + before + secret + after + filled, 2_000, keep=keep)
        assert not [
            secret[at : at + 6] for at in range(len(secret) - 6) if secret[at : at + 6] in kept
        ]


HOSTILE = "a@" + "." * 70


async def test_a_request_full_of_it_is_answered(settings: Settings) -> None:
    async with open_api(settings) as api:
        for name in ("jobId", "userId", "name", "userAgent", "provider"):
            answer = await api.post(
                SIGNIN,
                json=SIGN_IN | {"jobId": f"of-{name}", "userId": f"of-{name}", name: HOSTILE},
            )
            assert answer.status_code == 202
            answer = await api.get(f"/api/jobs/{answer.json()['jobId']}")
            assert answer.status_code == 200
        answer = await api.post(
            "/api/jobs", json={"type": HOSTILE, "delay": HOSTILE, "payload": {}}, headers=ADMIN
        )
        assert answer.status_code == 400


async def test_a_job_called_so_is_done_and_harms_no_other(
    connection: AsyncConnection[Any], settings: Settings
) -> None:
    @task("test.job", max_attempts=1)
    async def failing(job: Job[Any]) -> None:
        raise ValueError(HOSTILE * 3)

    @task("test.other")
    async def other(job: Job[Any]) -> None:
        pass

    await published(connection, settings, failing, other)
    async with AsyncClient.open(settings) as client, working(settings, failing, other):
        await client.enqueue(failing, {"text": HOSTILE}, job_id=HOSTILE, user_id=HOSTILE)
        await client.enqueue(other, {}, job_id="other")

        async def both_ended() -> bool:
            rows = await sql(connection, "SELECT status FROM job_logs ORDER BY status")
            return [row["status"] for row in rows] == ["completed", "dlq"]

        await until(both_ended)
