"""Effects: inside Postgres exactly once, outside of it with a declared intent."""

import msgspec

from pgqueue import Discard, Job, task


class Invoice(msgspec.Struct):
    number: str


# [transaction]
@task("invoice.book")
async def book(job: Job[Invoice]) -> None:
    # A psycopg.AsyncConnection. Its commit also completes the job.
    async with job.transaction() as connection:
        await connection.execute("INSERT INTO payments (invoice) VALUES (%s)", [job.payload.number])


# [/transaction]


class Bank:
    """Stands for a payment provider."""

    def __init__(self) -> None:
        self.charged: list[str] = []

    async def charge(self, invoice: str) -> str:
        self.charged.append(invoice)
        return f"receipt {len(self.charged)}"

    async def knows(self, invoice: str) -> bool:
        return invoice in self.charged


bank = Bank()


# [intend]
@task("invoice.charge")
async def charge(job: Job[Invoice]) -> None:
    # An earlier attempt may have charged the card and died before it could say so.
    if job.uncertain and await bank.knows(job.payload.number):
        raise Discard("charged already")
    await job.intend()  # durable when it returns; LeaseLost when another worker has the job
    job.receipt = await bank.charge(job.payload.number)  # kept with the completed job


# [/intend]
