"""Database URLs as people have them, Prisma's among them, made into what libpq takes.

libpq itself reads them: here only the parameters of a URL are sorted out, and nothing is decoded
and written anew.
"""

from typing import Any
from urllib.parse import unquote, unquote_plus

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

_SCHEMES = ("postgresql://", "postgres://")

_ALIVE: dict[str, Any] = {
    "application_name": "pgqueue",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Without these a peer that is gone without a word is not noticed for hours (seconds,
tcp_user_timeout in ms)."""

_ENCODE = (
    "write the special characters of user and password as in URLs: %40 for @, %2F for /, %25 for %"
)


def _libpq_keywords() -> set[str]:
    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def _after_user(url: str) -> int:
    """Where the host begins. User and password end at the first @ before a slash, and may hold a
    question mark (conninfo_uri_parse_options of libpq)."""
    at = url.find("://") + 3
    slash, sign = url.find("/", at), url.find("@", at)
    return sign + 1 if sign >= 0 and not 0 <= slash < sign else at


def _split(url: str) -> tuple[str, list[str]]:
    """A URL without its parameters, and those as they are written: `key=value`."""
    if not url.startswith(_SCHEMES):
        return url, []
    mark = url.find("?", _after_user(url))
    if mark < 0:
        return url, []
    return url[:mark], [pair for pair in url[mark + 1 :].split("&") if pair]


def _key(pair: str) -> str:
    return unquote(pair.partition("=")[0])


def foreign_parameters(url: str) -> list[str]:
    """Names of the parameters that libpq does not know."""
    known = _libpq_keywords() | {"schema", "ssl"}
    return [key for key in map(_key, _split(url)[1]) if key not in known]


def schema_of(url: str) -> str | None:
    """Prisma's ?schema=."""
    for pair in _split(url)[1]:
        if _key(pair) == "schema":
            return unquote_plus(pair.partition("=")[2])
    return None


def passwords_of(url: str) -> list[str]:
    """Every secret in it, as libpq reads it; none where libpq cannot read it."""
    try:
        given = conninfo_to_dict(_for_libpq(url))
    except ProgrammingError:
        return []
    return [
        str(value)
        for key, value in given.items()
        if key in ("password", "sslpassword", "oauth_client_secret")
    ]


def _for_libpq(url: str) -> str:
    base, pairs = _split(url)
    known = _libpq_keywords() | {"ssl"}
    kept = [pair for pair in pairs if _key(pair) in known]
    return f"{base}?{'&'.join(kept)}" if kept else base


def libpq_string(url: str, pooled: bool) -> str:
    """A libpq string: Prisma's parameters taken out, its schema made the search path, and dead
    peers noticed.

    Raises ValueError, which shows nothing of the URL, when libpq cannot read it, or reads a part of
    a password as something else.
    """
    options: dict[str, Any] = {}
    schema = schema_of(url)
    if schema and not pooled:
        quoted = '"' + schema.replace('"', '""') + '"'
        options["options"] = "-c search_path=" + quoted.replace("\\", "\\\\").replace(" ", "\\ ")
    given = _read(url)
    for key, value in _ALIVE.items():
        options.setdefault(key, given.get(key, value))
    if "options" in given:
        options["options"] = f"{given['options']} {options.get('options', '')}".strip()
    return make_conninfo(_for_libpq(url), **options)


def _read(url: str) -> dict[str, Any]:
    if "://" in url.partition("=")[0] and not url.startswith(_SCHEMES):
        raise ValueError("not a Postgres URL: it begins with postgresql://")
    try:
        given = conninfo_to_dict(_for_libpq(url))
    except ProgrammingError:
        # Its message quotes what it could not read, and that may be a part of the password.
        raise ValueError(f"not a Postgres URL that libpq can read: {_ENCODE}") from None
    ports = str(given.get("port", "")).split(",")
    if any(
        port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)
        for port in ports
    ):
        raise ValueError(f"its port is not a number from 1 to 65535: {_ENCODE}")
    hosts = str(given.get("host", ""))
    if not hosts.startswith(("/", "@")) and any(one in hosts for one in "@?# "):
        raise ValueError(f"its host is not the name of one: {_ENCODE}")
    base, pairs = _split(url)
    if url.startswith(_SCHEMES) and "@" in base[_after_user(url) :]:
        raise ValueError(f"an @ stands after the password's end: {_ENCODE}")
    known = _libpq_keywords()
    if any("=" not in pair or ("@" in pair and _key(pair) not in known) for pair in pairs):
        # The name of an unknown parameter is shown to people, and this may be the end of a
        # password.
        raise ValueError(f"what follows the ? is not a list of parameters: {_ENCODE}")
    return given
