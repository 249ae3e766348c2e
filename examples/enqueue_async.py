"""Enqueue jobs from a program that awaits."""

import asyncio
import os

from images import Resize, resize

from pgqueue import AsyncClient, NewJob


# [enqueue]
async def main() -> None:
    async with AsyncClient.open(os.environ["DATABASE_URL"]) as client:
        ticket = await client.enqueue(resize, Resize("a.png", 200), job_id="img-1")
        print(ticket.job_id, ticket.status)
        # [/enqueue]

        # [more]
        # In ten minutes; priority 0 starts first, 9 last, 5 is the default.
        await client.enqueue(resize, Resize("b.png", 200), delay="10m", priority=0)

        # Up to 10,000 jobs in one commit: a ticket for each, in order.
        jobs = [NewJob(resize, Resize(f"{n}.png", 200)) for n in range(100)]
        tickets = await client.enqueue_many(jobs)
        print(len(tickets), "more")
        # [/more]

        view = await client.get("img-1")
        print(view.status, view.attempt_count, view.error)


asyncio.run(main())
