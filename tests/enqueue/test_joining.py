"""`connection=`: a job in the caller's transaction, whatever kind of connection that is; or refused
before anything is sent."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import (
    AsyncClientCursor,
    AsyncConnection,
    AsyncCursor,
    AsyncRawCursor,
    AsyncServerCursor,
)
from psycopg.rows import args_row, class_row, dict_row, kwargs_row, namedtuple_row, scalar_row

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import DuplicatePayload, InvalidJob, RateLimited
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.support.factories import sql, value
from tests.support.scene import published

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@task("test.job", rate_limit=Limit(1, per="1h"))
async def handler(job: Job[Any]) -> None: ...


@dataclass
class Foreign:
    n: int


class OneRowCursor(AsyncCursor[Any]):
    """As an application may have it."""

    async def fetchall(self) -> list[Any]:
        return [None]


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as opened:
        yield opened


async def own(settings: Settings, **options: Any) -> Connection:
    return await AsyncConnection.connect(settings.conninfo, **options)


async def joins(client: AsyncClient, mine: Connection) -> None:
    """One job is stored; another is refused by the limit, one by its payload; the transaction stays
    usable."""
    assert (
        await client.enqueue(
            handler, {"n": 1}, job_id="j", user_id="u", delay="1d", connection=mine
        )
    ).created
    with pytest.raises(RateLimited):
        await client.enqueue(handler, {}, user_id="u", connection=mine)
    with pytest.raises(DuplicatePayload):
        await client.enqueue(handler, {"n": 2}, job_id="j", user_id="u", connection=mine)
    tickets = await client.enqueue_many(
        [NewJob(handler, {}, user_id=f"v{n}") for n in range(3)], connection=mine
    )
    assert [ticket.created for ticket in tickets] == [True] * 3


OPTIONS: dict[str, dict[str, Any]] = {
    "dicts": {"row_factory": dict_row},
    "classes": {"row_factory": class_row(Foreign)},
    "named tuples": {"row_factory": namedtuple_row},
    "scalars": {"row_factory": scalar_row},
    "arguments": {"row_factory": args_row(Foreign)},
    "keywords": {"row_factory": kwargs_row(Foreign)},
    "of its own": {"row_factory": lambda cursor: lambda row: None},
    "client cursor": {"cursor_factory": AsyncClientCursor},
    "raw cursor": {"cursor_factory": AsyncRawCursor},
    "a class of its own": {"cursor_factory": OneRowCursor},
    "autocommit": {"autocommit": True},
    "nothing prepared": {"prepare_threshold": None},
    "everything prepared": {"prepare_threshold": 0},
    "other styles": {
        "options": "-c DateStyle=German -c IntervalStyle=iso_8601 -c TimeZone=Europe/Berlin"
    },
    "another encoding": {"client_encoding": "LATIN1"},
}


@pytest.mark.parametrize("kind", OPTIONS)
async def test_any_kind_of_connection_is_joined(
    client: AsyncClient, connection: Connection, settings: Settings, kind: str
) -> None:
    async with await own(settings, **OPTIONS[kind]) as mine:
        await joins(client, mine)
        seen = 4 if mine.autocommit else 0
        assert await value(connection, "SELECT count(*) FROM job_logs") == seen, (
            "until the caller commits"
        )
    assert await value(connection, "SELECT count(*) FROM job_logs") == 4


async def test_a_server_cursor_factory_is_passed_by(
    client: AsyncClient, settings: Settings
) -> None:
    async with await own(settings) as mine:
        mine.server_cursor_factory = AsyncServerCursor
        await joins(client, mine)


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_pipeline_is_joined(
    client: AsyncClient, connection: Connection, settings: Settings, autocommit: bool
) -> None:
    async with await own(settings, autocommit=autocommit) as mine, mine.pipeline():
        await mine.execute("SELECT 1")
        await joins(client, mine)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 4


async def test_a_rolled_back_transaction_leaves_nothing(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    async with await own(settings) as mine:
        await joins(client, mine)
        await mine.rollback()
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


async def _closed(mine: Connection) -> None:
    await mine.close()


async def _failed(mine: Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await mine.execute("SELECT 1/0")


@pytest.mark.parametrize(("spoil", "words"), [(_closed, "closed"), (_failed, "roll it back")])
async def test_what_cannot_carry_a_job_is_refused_before_anything_is_sent(
    client: AsyncClient, settings: Settings, spoil: Callable[[Connection], Any], words: str
) -> None:
    async with await own(settings) as mine:
        await spoil(mine)
        for call in (
            client.enqueue(handler, {}, user_id="u", connection=mine),
            client.enqueue_many([NewJob(handler, {})], connection=mine),
        ):
            with pytest.raises(InvalidJob, match=words):
                await call


async def test_a_connection_in_the_middle_of_a_copy_is_refused(
    client: AsyncClient, settings: Settings
) -> None:
    impatient = AsyncClient(client.pool, doorbell=False, timeout=0.2)
    async with (
        await own(settings) as mine,
        mine.cursor() as cursor,
        cursor.copy("COPY (SELECT generate_series(1, 10)) TO STDOUT") as copy,
    ):
        with pytest.raises(InvalidJob, match="COPY"):
            await impatient.enqueue(handler, {}, user_id="u", connection=mine)
        assert [row async for row in copy]


async def test_a_connection_that_is_none_of_ours_is_refused(
    client: AsyncClient, settings: Settings
) -> None:
    with psycopg.connect(settings.conninfo) as blocking:
        for wrong in (blocking, object(), "postgresql://"):
            with pytest.raises(InvalidJob, match="AsyncConnection"):
                await client.enqueue(handler, {}, user_id="u", connection=wrong)  # type: ignore[arg-type]  # that is the point
        assert blocking.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_a_text_that_the_connection_has_no_word_for_is_refused(
    client: AsyncClient, settings: Settings
) -> None:
    async with await own(settings, client_encoding="LATIN1") as mine:
        assert (await client.enqueue(handler, "é", user_id="u", connection=mine)).created
        with pytest.raises(InvalidJob, match="UTF8"):
            await client.enqueue(handler, "Болд", user_id="v", connection=mine)


async def test_a_connection_of_another_loop_is_joined(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    mine = await own(settings)

    async def elsewhere() -> None:
        async with AsyncClient.open(settings) as other:
            await joins(other, mine)
        await mine.commit()

    await asyncio.to_thread(asyncio.run, elsewhere())
    await mine.close()
    assert len(await sql(connection, "SELECT 1 FROM job_logs")) == 4
