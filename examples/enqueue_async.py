"""The same from a program that awaits."""

import asyncio

from images import Resize, resize

from pgqueue import AsyncClient


async def main() -> None:
    async with AsyncClient.from_env() as client:
        ticket = await client.enqueue(resize, Resize("a.png", 200), job_id="img-2")
        print(ticket.job_id, ticket.status)


asyncio.run(main())
