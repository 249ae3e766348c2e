"""Enqueue jobs from a program that blocks: a script, Flask, Django."""

# [first]
from images import Resize, resize

from pgqueue import Client, NewJob

with Client.from_env() as client:  # DATABASE_URL
    ticket = client.enqueue(resize, Resize("a.png", 200), job_id="img-1")
    print(ticket.job_id, ticket.status)
    # [/first]

    # [more]
    # In ten minutes; priority 0 starts first, 9 last, 5 is the default.
    client.enqueue(resize, Resize("b.png", 200), delay="10m", priority=0)

    # Up to 10,000 jobs in one commit: a ticket for each, in order.
    tickets = client.enqueue_many([NewJob(resize, Resize(f"{n}.png", 200)) for n in range(100)])
    print(len(tickets), "more")

    # A refusal is not an exception here, but the error of the ticket.
    ticket = client.try_enqueue(NewJob(resize, Resize("another.png", 9), job_id="img-1"))
    print(ticket.error)

    view = client.get("img-1")
    print(view.status, view.attempt_count, view.error)
    # [/more]
