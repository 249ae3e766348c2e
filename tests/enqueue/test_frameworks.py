"""`connection=` of the blocking client: Django's connection, SQLAlchemy's Connection and
Session."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pgqueue import Client, DuplicatePayload, Job, Limit, NewJob, RateLimited, task
from pgqueue.errors import InvalidJob
from pgqueue.settings import Settings
from tests.support.both_clients import publish_now, value_now
from tests.support.django_database import django as django
from tests.support.scene import link, registered


@task("test.job", rate_limit=Limit(1, per="1h"))
async def handler(job: Job[Any]) -> None: ...


@pytest.fixture
def client(database_url: str, settings: Settings) -> Iterator[Client]:
    publish_now(database_url, settings, handler)
    with Client.open(settings) as opened:
        yield opened


def stored(database_url: str) -> int:
    return int(value_now(database_url, "SELECT count(*) FROM job_logs"))


def joins(client: Client, mine: Any) -> None:
    """One job is stored; others are refused; the transaction stays usable."""
    assert client.enqueue(
        handler, {"n": 1}, job_id="j", user_id="u", delay="1d", connection=mine
    ).created
    with pytest.raises(RateLimited):
        client.enqueue(handler, {}, user_id="u", connection=mine)
    with pytest.raises(DuplicatePayload):
        client.enqueue(handler, {"n": 2}, job_id="j", user_id="u", connection=mine)
    tickets = client.enqueue_many(
        [NewJob(handler, {}, user_id=f"v{n}") for n in range(3)], connection=mine
    )
    assert [ticket.created for ticket in tickets] == [True] * 3


# Django


class Changed(Exception):
    """The view changed its mind."""


def test_django_s_atomic_block_takes_the_job_with_it(
    client: Client, database_url: str, django: Any
) -> None:
    from django.db import connection as mine
    from django.db import transaction

    with transaction.atomic():
        joins(client, mine)
        assert stored(database_url) == 0
    assert stored(database_url) == 4


def test_django_s_rollback_leaves_no_job(client: Client, database_url: str, django: Any) -> None:
    from django.db import connection as mine
    from django.db import transaction

    with pytest.raises(Changed), transaction.atomic():  # noqa: PT012 - a block that is left
        joins(client, mine)
        raise Changed
    assert stored(database_url) == 0
    with transaction.atomic():
        with pytest.raises(Changed), transaction.atomic():  # noqa: PT012 - a block that is left
            client.enqueue(handler, {}, user_id="inner", connection=mine)
            raise Changed
        client.enqueue(handler, {}, user_id="outer", connection=mine)
    assert value_now(database_url, "SELECT string_agg(user_id, ' ') FROM job_logs") == "outer"


def test_django_outside_of_a_block_commits_at_once(
    client: Client, database_url: str, django: Any
) -> None:
    from django.db import connection as mine
    from django.db import connections

    mine.close()
    client.enqueue(handler, {}, user_id="u", connection=mine)
    client.enqueue(handler, {}, user_id="v", connection=connections["default"])
    assert stored(database_url) == 2


async def asleep(settings: Settings) -> None:
    """A worker is registered, and sleeps."""
    async with link(settings) as one:
        await registered(one, "w-1")
        await one.run("sleep_worker", {"worker": "w-1"})


def test_django_rings_when_it_has_committed(
    client: Client, database_url: str, settings: Settings, django: Any
) -> None:
    from django.db import connection as mine
    from django.db import transaction

    asyncio.run(asleep(settings))
    with transaction.atomic():
        client.enqueue(handler, {}, user_id="u", connection=mine)
        transaction.on_commit(client.notify)
    client.close()
    assert value_now(database_url, "SELECT count(*) FROM job_workers WHERE NOT asleep") == 1


# SQLAlchemy


@pytest.fixture
def engine(settings: Settings) -> Iterator[Any]:
    import sqlalchemy

    url = str(settings.database_url).replace("postgresql://", "postgresql+psycopg://")
    made = sqlalchemy.create_engine(url)
    yield made
    made.dispose()


def test_sqlalchemy_s_connection_takes_the_job_with_its_commit(
    client: Client, database_url: str, engine: Any
) -> None:
    with engine.begin() as mine:
        joins(client, mine)
        assert stored(database_url) == 0
    assert stored(database_url) == 4
    with engine.connect() as mine:
        client.enqueue(handler, {}, user_id="committed", connection=mine)
        mine.commit()
        client.enqueue(handler, {}, user_id="rolled back", connection=mine)
        mine.rollback()
        client.enqueue(handler, {}, user_id="left", connection=mine)
    users = "SELECT string_agg(user_id, ' ') FROM job_logs WHERE user_id ~ '^[clr]'"
    assert value_now(database_url, users) == "committed"


def test_sqlalchemy_s_session_takes_the_job_with_its_commit(
    client: Client, database_url: str, engine: Any
) -> None:
    from sqlalchemy.orm import Session

    with Session(engine) as session:
        joins(client, session)
        assert stored(database_url) == 0
        session.commit()
        client.enqueue(handler, {}, user_id="rolled back", connection=session)
        session.rollback()
    assert stored(database_url) == 4


def test_sqlalchemy_s_autocommit_commits_at_once(
    client: Client, database_url: str, engine: Any
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as mine:
        client.enqueue(handler, {}, user_id="u", connection=mine)
        assert stored(database_url) == 1


def test_a_raw_connection_of_its_pool_is_joined(
    client: Client, database_url: str, engine: Any
) -> None:
    mine = engine.raw_connection()
    joins(client, mine)
    mine.commit()
    mine.close()
    assert stored(database_url) == 4


def test_a_framework_on_another_driver_is_refused(client: Client) -> None:
    import sqlalchemy

    with (
        sqlalchemy.create_engine("sqlite://").connect() as other,
        pytest.raises(InvalidJob, match=r"not Connection \(under it: sqlite3\.Connection\)"),
    ):
        client.enqueue(handler, {}, user_id="u", connection=other)
