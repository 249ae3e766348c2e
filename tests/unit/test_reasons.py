"""What psycopg raises, in words; and nothing of what the database URL holds."""

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import PoolTimeout

from pgqueue.database.reasons import reason
from pgqueue.embedded.server import EmbeddedServer

SECRET = "sw0rdf1sh"


def failing(url: str) -> str:
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect(url, connect_timeout=2)
    said = reason(raised.value)
    assert SECRET not in said
    return said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/d", "connection refused"),
        (f"postgresql://u:{SECRET}@localhost:1/d", "connection refused"),
        (f"postgresql://u:{SECRET}@/d?host=/no/such/{SECRET}", "no server listens on this socket"),
        (f"postgresql://u:x@{SECRET}.invalid/d", "host is not known"),
    ],
)
def test_a_server_that_is_not_there(url: str, words: str) -> None:
    assert words in failing(url)


def test_what_a_server_refuses(database_url: str) -> None:
    assert "password was refused" in failing(make_conninfo(database_url, password=SECRET))
    assert "no such database" in failing(make_conninfo(database_url, dbname=SECRET))
    assert "password was refused" in failing(make_conninfo(database_url, user=SECRET))
    assert "TLS" in failing(make_conninfo(database_url, sslmode="require"))
    both = (
        f"host=127.0.0.1,127.0.0.1 port=1,{psycopg.conninfo.conninfo_to_dict(database_url)['port']}"
    )
    assert "password was refused" in failing(f"{both} user=u password={SECRET} dbname=d"), (
        "of two, the one that came closer"
    )


def test_a_server_that_is_full() -> None:
    with EmbeddedServer({"max_connections": 4, "superuser_reserved_connections": 1}) as server:
        held = [psycopg.connect(server.url()) for _ in range(4)]
        assert "too many connections" in failing(server.url())
        for one in held:
            one.close()


def test_a_statement_that_is_refused_or_cut(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as one:
        for setting, statement, words in (
            ("statement_timeout = '10ms'", "SELECT pg_sleep(5)", "timed out"),
            ("default_transaction_read_only = on", "CREATE TABLE t ()", "read-only"),
            (
                "statement_timeout = 0",
                "SELECT pg_terminate_backend(pg_backend_pid())",
                "ended the connection",
            ),
        ):
            one.execute(f"SET {setting}")
            with pytest.raises(psycopg.Error) as raised:
                one.execute(statement)
            assert words in reason(raised.value)


def test_a_pool_without_a_connection_says_why_it_has_none() -> None:
    none = PoolTimeout("couldn't get a connection")
    assert "no connection came free" in reason(none)
    none.__cause__ = psycopg.OperationalError("connection to server failed: Connection refused")
    assert "connection refused" in reason(none)
    assert "timed out" in reason(TimeoutError())
    assert reason(OSError(f"who knows {SECRET}")) == "the connection failed (OSError)"
