"""A process that does to the same few jobs whatever can be done, in any order: `python -m
tests.chaos.agitator ORDER`."""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import psycopg

from pgqueue import AsyncClient, NewJob
from pgqueue.client import DeadFilter
from pgqueue.errors import JobNotFound, QueueError, WrongState
from tests.chaos.producer import Book
from tests.chaos.size import span


class Order(msgspec.Struct):
    url: str
    accepted: str
    ids: int
    seconds: float
    at_once: int = 4


def a_job(number: int) -> NewJob:
    """The same one for everybody in that second: some fail once, most always, some are discarded,
    some outlast their lease."""
    payload = {
        "times": (0, 1, 9, 9)[number % 4],
        "discard": number % 11 == 0,
        "seconds": 2.5 if number % 13 == 0 else 0.02,
    }
    return NewJob("chaos.flaky", payload, f"same-{int(time.time())}-{number}", max_attempts=2)


class Agitator:
    def __init__(self, client: AsyncClient, order: Order) -> None:
        self.client = client
        self.order = order
        self.book = Book(order.accepted)
        self.did: Counter[str] = Counter()

    async def run(self) -> None:
        until = time.monotonic() + self.order.seconds
        await asyncio.gather(*(self._agitate(until) for _ in range(self.order.at_once)))

    async def _agitate(self, until: float) -> None:
        deeds: Sequence[Callable[[], Awaitable[object]]] = (
            self._enqueue, self._enqueue, self._enqueue, self._cancel, self._replay,
            self._replay_many, self._delete
        )  # fmt: skip
        while time.monotonic() < until:
            deed = random.choice(deeds)
            try:
                await deed()
                self.did[deed.__name__.strip("_")] += 1
            except (JobNotFound, WrongState):
                self.did["too late"] += 1
            except (psycopg.Error, QueueError) as error:
                self.did["unhandled"] += 1
                print(f"{deed.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            await span(random.uniform(0, 0.02))

    def _one(self) -> str:
        return f"same-{int(time.time()) - random.randrange(3)}-{random.randrange(self.order.ids)}"

    async def _enqueue(self) -> None:
        numbers = random.sample(range(self.order.ids), self.order.ids // 2)
        for ticket in await self.client.enqueue_many([a_job(number) for number in numbers]):
            if ticket.error is None:
                self.book.write(ticket.job_id)

    async def _cancel(self) -> None:
        await self.client.cancel(self._one())

    async def _replay(self) -> None:
        await self.client.replay(self._one())

    async def _replay_many(self) -> None:
        await self.client.replay_many(DeadFilter(), rate=1000)

    async def _delete(self) -> None:
        await self.client.delete_dead(self._one())


async def main(order: Order) -> None:
    async with AsyncClient.open(order.url) as client:
        agitator = Agitator(client, order)
        await agitator.run()
    print(msgspec.json.encode(agitator.did).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
