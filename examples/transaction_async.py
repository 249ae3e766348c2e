"""A row of your own and a job in one commit, with psycopg's AsyncConnection."""

import asyncio
import os

from images import Resize, resize
from psycopg_pool import AsyncConnectionPool

from pgqueue import AsyncClient


async def main() -> None:
    url = os.environ["DATABASE_URL"]
    # In your application: the pool that it has, with any settings of its own.
    async with AsyncConnectionPool(url) as pool, AsyncClient.from_env() as client:
        # [transaction]
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO images (name) VALUES ('b.png')")
            await client.enqueue(resize, Resize("b.png", 200), connection=connection)
        client.notify()  # optional: a sleeping worker starts now, and not within two seconds
        # [/transaction]


asyncio.run(main())
