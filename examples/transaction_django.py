"""The same with Django. In an application the settings are in a module of their own."""

import os

import django
from django.conf import settings
from images import Resize, resize
from psycopg.conninfo import conninfo_to_dict

from pgqueue import Client

url = conninfo_to_dict(os.environ["DATABASE_URL"])
database = {"NAME": url["dbname"], "USER": url["user"], "PASSWORD": url["password"]}
database |= {"HOST": url["host"], "PORT": url["port"], "ENGINE": "django.db.backends.postgresql"}
settings.configure(DATABASES={"default": database})
django.setup()

# [transaction]
from django.db import connection, transaction  # noqa: E402 - after the settings

client = Client.from_env()  # once for the application


def add_image(name: str) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO images (name) VALUES (%s)", [name])
        client.enqueue(resize, Resize(name, 200), connection=connection)
        transaction.on_commit(client.notify)
        # [/transaction]


add_image("d.png")
client.close()
