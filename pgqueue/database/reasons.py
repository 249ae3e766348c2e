"""From what psycopg raises to a plain sentence for people: why the database cannot be used, and
without a secret."""

import re

import psycopg
from psycopg_pool import PoolTimeout

from pgqueue.errors import QueueError, Unavailable
from pgqueue.masking import clean

_STATES = {
    "28P01": "the password was refused",
    "28": "the login was refused",
    "3D000": "there is no such database",
    "53300": "too many connections: the server has no room for another one",
    "53100": "the disk of the database is full",
    "53": "the server is out of resources",
    "57P03": "the server is starting up or shutting down",
    "57P01": "the server ended the connection",
    "57P02": "the server ended the connection after a crash",
    "57014": "timed out: the statement took too long",
    "55P03": "timed out: another transaction holds a lock",
    "25P03": "the server ended the connection, which waited too long in a transaction",
    "25006": "the server is read-only: a standby, or default_transaction_read_only is on",
    "42501": "a right is missing",
    "08": "the connection was lost",
}
"""By SQLSTATE, or by its class."""

_TEXTS = tuple((re.compile(pattern, re.IGNORECASE), what) for pattern, what in (
    # A login that was refused leaves no SQLSTATE, only libpq's text. Of several hosts the one that
    # came closest tells most.
    (r"password authentication failed|no password supplied|SASL authentication|wrong password",
     "28P01"),
    ((r"too many (?:clients|connections)|remaining connection slots|no more connections "
        r"allowed"), "53300"),
    (r'database ".{1,200}" does not exist|no such database', "3D000"),
    ((r'role ".{1,200}" does not exist|no pg_hba\.conf entry|authentication failed|is not '
        r'permitted to log in'), "28"),
    (r"starting up|shutting down|not yet accepting connections|recovery mode", "57P03"),
    (r"terminating connection|server_login_retry|server closed the connection unexpectedly",
     "57P01"),
    (r"read-only|session is not", "25006"),
    (r"SSL|certificate", "TLS could not be agreed on: see sslmode in the database URL"),
    (r"resolve host|translate host name|name or service not known",
     "the name of the host is not known"),
    (r"connection refused", "connection refused: no server listens at this host and port"),
    (r"no such file or directory", "connection refused: no server listens on this socket"),
    (r"no route to host|network is unreachable",
     "there is no way to this host through the network"),
    (r"timeout expired|timed out|didn't complete", "timed out: the server did not answer"),
    (r"connection (?:is |was )?(?:closed|lost|reset)|broken pipe|reset by peer|SYSCALL|EOF", "08"),
))  # fmt: skip

_REFUSED = re.compile(r"failed: [^\s:]+:  (.+)")
"""What a server that refused a login wrote, in its own language."""


def reason(error: BaseException) -> str:
    """Why the database cannot be used, as a part of a sentence. Names no host, login or password:
    it may be logged and shown."""
    if isinstance(error, Unavailable):
        return error.reason
    for one in (error, error.__cause__):
        if isinstance(one, QueueError):
            return str(one)
    state = getattr(error, "sqlstate", None)
    if state:
        known = _STATES.get(state) or _STATES.get(state[:2])
        if known:
            return known
    elif isinstance(error, PoolTimeout):
        if isinstance(error.__cause__, Exception):
            return reason(error.__cause__)
        return "timed out: no connection came free"
    said = str(error)
    for pattern, what in _TEXTS:
        if state is None and pattern.search(said):
            return _STATES.get(what, what)
    if refused := _REFUSED.search(said):
        return clean(f"the server answered: {refused[1]}", 300)
    if isinstance(error, TimeoutError):
        return "timed out: the server did not answer"
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return clean(f"the server answered: {error.diag.message_primary}", 300)
    return f"the connection failed ({type(error).__name__})"
