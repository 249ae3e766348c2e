"""Rules of those who enqueue."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from pgqueue.errors import DuplicatePayload, RateLimited
from pgqueue.job import NewJob, Ticket
from tests.machine.core import Core
from tests.machine.values import Answer, Item, Row

Told = tuple[Item, Ticket]

TYPES = (
    "m.plain",
    "m.limited",
    "m.brief",
    "m.plain",
    "m.limited",
    "m.brief",
    "m.plain",
    "m.strange",
    "m.brief",
)

HONEST = [
    Item(TYPES[number % 9], {"n": 1}, f"j{number}", f"u{number % 4 // 2}") for number in range(18)
]
"""Whoever sends an id sends the same under it, as a rule."""

TWISTS: list[dict[str, Any]] = [
    *[{}] * 7,
    {"payload": {"n": 2}},
    {"user_id": "u2"},
    {"job_type": "m.plain"},
]
MANNERS: list[dict[str, Any]] = [
    *[{}] * 7,
    {"queue": "other"},
    {"priority": 0},
    {"priority": 9},
    {"delay": timedelta(minutes=1)},
    {"delay": timedelta(hours=3)},
    {"max_attempts": 1},
    {"max_attempts": 3, "priority": 0},
]

items = st.builds(
    lambda item, twist, manner: item._replace(**twist, **manner),
    st.sampled_from(HONEST),
    st.sampled_from(TWISTS),
    st.sampled_from(MANNERS),
)


def offered(item: Item) -> NewJob:
    return NewJob(
        item.job_type,
        item.payload,
        item.job_id,
        item.user_id,
        item.queue,
        item.priority,
        None,
        item.delay,
        item.max_attempts,
    )


def answered(ticket: Ticket) -> Answer:
    refusals = {
        RateLimited: "rate_limited",
        DuplicatePayload: "duplicate_payload",
        type(None): None,
    }
    return Answer(
        ticket.status and str(ticket.status), ticket.created, refusals[type(ticket.error)]
    )


def by_id(told: Told) -> str:
    return told[0].job_id


def without_rivals(many: list[Item]) -> list[Item]:
    """Of those who send one id in one call for different users of a limited type only the first: if
    that one is refused, the others have their turn after all the rest, and a place may have gone to
    somebody behind them."""
    first = {item.job_id: (item.job_type, item.user_id) for item in reversed(many)}
    return [
        item
        for item in many
        if item.job_type != "m.limited" or first[item.job_id] == (item.job_type, item.user_id)
    ]


class Producing(Core):
    def accept(self, item: Item, ticket: Ticket, *moments: datetime) -> None:
        answer = answered(ticket)
        assert answer in self.oracle.answers(item, *moments), f"{item} was answered {answer}"
        self.tally[f"answer: {answer.refusal or ('new' if answer.created else 'known')}"] += 1
        if answer.created:
            self.oracle.add(item)

    def check_wait(self, item: Item, error: RateLimited, now: datetime) -> None:
        """The place that comes free first is that of the n-th newest."""
        kind = self.oracle.kinds[item.job_type]
        assert kind.limit
        newest = sorted(
            (row.created_at for row in self.oracle.used(item, self.last.now)), reverse=True
        )
        free = newest[kind.limit - 1]
        assert isinstance(free, datetime)
        assert (
            max(free + kind.window - now, timedelta())
            <= error.retry_after
            <= free + kind.window - self.last.now
        )

    @initialize(many=st.lists(items, min_size=4, max_size=9))
    def some_jobs_are_there(self, many: list[Item]) -> None:
        self.enqueue_many(many)

    @rule(item=items, way=st.sampled_from(["client"] * 5 + ["INSERT", "rolled back"]))
    def enqueue(self, item: Item, way: str) -> None:
        self.begin("enqueue")
        match way:
            case "INSERT":
                self._insert(item)
            case "rolled back":
                self.stage.play(self._offer_and_roll_back(item))
            case _:
                self._offer(item)

    def _offer(self, item: Item) -> None:
        ticket = self.stage.play(self.stage.client.try_enqueue(offered(item)))
        now = self.now()
        self.accept(item, ticket, self.last.now, now)
        if isinstance(ticket.error, RateLimited):
            self.check_wait(item, ticket.error, now)

    def _insert(self, item: Item) -> None:
        """No limit and no tombstone, but the id is unique all the same."""
        values: dict[str, Any] = {
            "id": item.job_id,
            "type": item.job_type,
            "user": item.user_id,
            "n": item.payload["n"],
        }
        cursor = self.stage.eye.execute(
            """INSERT INTO job_logs (job_id, job_type, user_id, payload)
               VALUES (%(id)s, %(type)s, %(user)s, jsonb_build_object('n', %(n)s::int))
                ON CONFLICT DO NOTHING""",
            values,
        )
        assert cursor.rowcount == (item.job_id not in self.oracle.rows)
        if cursor.rowcount:
            self.oracle.add(
                item._replace(queue=None, priority=None, delay=None, max_attempts=None),
                counted=False,
            )

    async def _offer_and_roll_back(self, item: Item) -> None:
        async with (
            self.stage.pool.connection() as connection,
            connection.transaction(force_rollback=True),
        ):
            await self.stage.client.try_enqueue(offered(item), connection=connection)

    @rule(many=st.lists(items, min_size=1, max_size=7))
    def enqueue_many(self, many: list[Item]) -> None:
        """In one commit, and answered as if one by one."""
        self.begin("bulk")
        many = without_rivals(many)
        tickets = self.stage.play(self.stage.client.enqueue_many([offered(item) for item in many]))
        now = self.now()
        for item, ticket in zip(many, tickets, strict=True):
            self.accept(item, ticket, self.last.now, now)

    @rule(many=st.lists(items, min_size=2, max_size=6))
    def enqueue_at_once(self, many: list[Item]) -> None:
        """Callers who know nothing of each other share a commit, in the order of their ids; the
        first may have gone alone."""
        self.begin("at once")

        async def offer_all() -> list[Ticket]:
            return await asyncio.gather(
                *(self.stage.client.try_enqueue(offered(item)) for item in many)
            )

        told = list(zip(many, self.stage.play(offer_all()), strict=True))
        now = self.now()
        orders = [sorted(told, key=by_id), [told[0], *sorted(told[1:], key=by_id)]]
        for item, ticket in next(
            (order for order in orders if self._explains(order, now)), orders[0]
        ):
            self.accept(item, ticket, self.last.now, now)

    def _explains(self, order: list[Told], now: datetime) -> bool:
        """Whether the answers are what they would have been one after the other in this order."""
        before = dict(self.oracle.rows)
        try:
            for item, ticket in order:
                if answered(ticket) not in self.oracle.answers(item, self.last.now, now):
                    return False
                if ticket.created:
                    self.oracle.add(item)
            return True
        finally:
            self.oracle.rows = before

    @precondition(lambda self: self.pending is None)
    @rule(priority=st.sampled_from([None, 0]))
    def begin_slow_commit(self, priority: int | None) -> None:
        """Its run_after is set, and nobody sees it yet; every cursor will have passed it."""
        self.begin("slow")
        self.names += 1
        item = Item("m.plain", {"n": 1}, f"slow-{self.names}", "u0", priority=priority)

        async def offer() -> Row:
            await self.stage.client.try_enqueue(offered(item), connection=self.stage.slow)
            cursor = await self.stage.slow.execute(
                "SELECT created_at, run_after FROM job_logs WHERE job_id = %s", [item.job_id]
            )
            seen = await cursor.fetchone()
            assert seen is not None
            self.oracle.add(item)
            row = self.oracle.rows.pop(item.job_id)
            row.created_at, row.run_after = seen
            return row

        self.pending = self.stage.play(offer())

    @precondition(lambda self: self.pending is not None)
    @rule(commit=st.booleans())
    def end_slow_commit(self, commit: bool) -> None:
        self.begin("slow")
        if commit:
            self.commit_pending()
        else:
            self.pending = None
            self.stage.play(self.stage.slow.rollback())
