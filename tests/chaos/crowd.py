"""Producers that all want the same at once: `python -m tests.chaos.crowd ORDER`.

Every call's answer is a line in `answers`: what it was, the user, and the times before and after
the call.
"""

import asyncio
import random
import sys
import time

import msgspec

from pgqueue import AsyncClient
from pgqueue.errors import DuplicatePayload, RateLimited
from pgqueue.settings import Settings
from tests.chaos.producer import Book

JOB_TYPE = "chaos.limited"
LIMIT = 10

TURN = 0.05
"""Seconds that all processes spend on the same user."""


class Order(msgspec.Struct):
    """`callers` at once go through all `ids` so many `times`, each in an order of its own; or, with
    `users`, all of them sign in the same user, over and over, the next one 50 ms later, until
    `seconds` are over."""

    url: str
    accepted: str
    answers: str
    callers: int
    ids: int = 0
    times: int = 1
    users: int = 0
    seconds: float = 0.0


class Crowd:
    def __init__(self, client: AsyncClient, order: Order) -> None:
        self.client = client
        self.order = order
        self.accepted = Book(order.accepted)
        self.answers = Book(order.answers)
        self.until = time.time() + order.seconds

    async def run(self) -> None:
        callers = range(self.order.callers)
        if not self.order.users:
            await asyncio.gather(*(self._insist_on_ids() for _ in callers))
        while time.time() < self.until:
            user = int(time.time() / TURN) % self.order.users
            await asyncio.gather(*(self._call(f"user-{user}", None, {}) for _ in callers))

    async def _insist_on_ids(self) -> None:
        for _ in range(self.order.times):
            for number in random.sample(range(self.order.ids), self.order.ids):
                await self._call(f"user-{number // LIMIT}", f"same-{number}", {"number": number})

    async def _call(self, user: str, job_id: str | None, payload: dict[str, int]) -> None:
        before = time.time()
        try:
            ticket = await self.client.enqueue(JOB_TYPE, payload, job_id=job_id, user_id=user)
            self.accepted.write(ticket.job_id)
            answer = "created" if ticket.created else "known"
        except RateLimited:
            answer = "limited"
        except DuplicatePayload:
            answer = "other"
        self.answers.write(f"{answer} {user} {before} {time.time()}")


async def main(order: Order) -> None:
    async with AsyncClient.open(
        Settings(database_url=order.url, pool_size=order.callers)
    ) as client:
        await Crowd(client, order).run()
    print("{}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
