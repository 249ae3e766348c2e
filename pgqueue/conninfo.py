"""Database URLs as people have them, Prisma's among them, made into what libpq takes."""

from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

_ALIVE: dict[str, Any] = {
    "application_name": "pgqueue",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Without these a peer that is gone without a word is not noticed for hours (seconds, tcp_user_timeout in ms)."""


def _libpq_keywords() -> set[str]:
    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def _split(url: str) -> tuple[SplitResult, list[tuple[str, str]]]:
    parts = urlsplit(url)
    return parts, parse_qsl(parts.query, keep_blank_values=True)


def foreign_parameters(url: str) -> list[str]:
    if "://" not in url:
        return []
    known = _libpq_keywords() | {"schema"}
    return [key for key, _ in _split(url)[1] if key not in known]


def schema_of(url: str) -> str | None:
    return dict(_split(url)[1]).get("schema") if "://" in url else None


def libpq_string(url: str, pooled: bool) -> str:
    """A libpq string: Prisma's parameters taken out, its schema made the search path, and dead peers noticed."""
    options: dict[str, Any] = {}
    if "://" in url:
        parts, pairs = _split(url)
        if parts.scheme not in ("postgres", "postgresql"):
            raise ValueError("not a Postgres URL")
        known = _libpq_keywords()
        schema = dict(pairs).get("schema")
        url = urlunsplit(parts._replace(query=urlencode([(key, value) for key, value in pairs if key in known])))
        if schema and not pooled:
            quoted = '"' + schema.replace('"', '""') + '"'
            options["options"] = "-c search_path=" + quoted.replace("\\", "\\\\").replace(" ", "\\ ")
    given = conninfo_to_dict(url)
    for key, value in _ALIVE.items():
        options.setdefault(key, given.get(key, value))
    if "options" in given:
        options["options"] = f"{given['options']} {options.get('options', '')}".strip()
    return make_conninfo(url, **options)
