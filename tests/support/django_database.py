"""Django on the database of a test."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict


@pytest.fixture
def django(database_url: str) -> Iterator[Any]:
    """Django on the database of this test."""
    from django.conf import settings as configured
    from django.db import connections

    where = conninfo_to_dict(database_url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": where["host"],
        "PORT": where["port"],
        "USER": where["user"],
        "PASSWORD": where["password"],
        "NAME": where["dbname"],
        "CONN_MAX_AGE": None,
        "OPTIONS": {"application_name": "django"},
    }
    if not configured.configured:
        configured.configure(DATABASES={"default": database})
    connections.settings = connections.configure_settings({"default": database})
    yield connections
    connections.close_all()
    if connections.all(initialized_only=True):
        del connections["default"]  # this thread's; the next test has another database
