"""Store a row of your own and a job in one commit: both, or neither."""

import os

import psycopg
from images import Resize, resize

from pgqueue import Client

with Client.from_env() as client, psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    # [transaction]
    with connection.transaction():
        connection.execute("INSERT INTO images (name) VALUES ('b.png')")
        client.enqueue(resize, Resize("b.png", 200), connection=connection)
    client.notify()  # optional: a sleeping worker starts now, and not within two seconds
    # [/transaction]
