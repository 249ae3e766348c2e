"""Hostile values, what each kind of place has to do with them by the contract, and how a refusal
has to look."""

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
from pgqueue_service.notifications import signin
from psycopg import AsyncConnection

from pgqueue.settings import Settings
from tests.support.api import ADMIN, SIGN_IN, open_api, problem
from tests.support.factories import a_job, sql
from tests.support.logged import leaks

NOISE = "x" * 60_000

TEXTS: dict[str, str] = {
    "NUL": "a\0b",
    "NUL alone": "\0",
    "CR": "a\rb",
    "LF": "a\nb",
    "CRLF": "a\r\nb",
    "a header of its own": "a\r\nBcc: other@example.net",
    "a body of its own": "a\r\n\r\n<b>hello</b>",
    "a folded header": "a\r\n Bcc: other@example.net",
    "NEL": "a\x85Bcc: other@example.net",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "vertical tab": "a\x0bb",
    "escape": "a\x1b[2J\x1b]0;owned\x07b",
    "DEL": "a\x7fb",
    "CSI": "a\x9bb",
    "right to left": "a\u202egnp.exe",
    "isolate": "a\u2066b\u2069",
    "lone surrogate": "a\ud800b",
    "SQL, a statement": "x'; DROP TABLE job_logs; --",
    "SQL, a condition": "' OR '1'='1",
    "SQL, a comment": "x'/**/OR/**/1=1#",
    "SQL, dollars": "$$; SELECT pg_sleep(10); $$",
    "SQL, a copy": "'); COPY job_logs TO PROGRAM 'true'; --",
    "SQL, wild cards": "%",
    "SQL, any character": "_",
    "SQL, a backslash": "\\",
    "HTML": "<script>alert(1)</script>",
    "HTML, an attribute": "\"><img src=x onerror='alert(1)'>",
    "HTML, an entity": "&lt;b&gt;&#0;&amp",
    "HTML, a comment": "--><style>*{display:none}</style><!--",
    "a template": "{{ 7 * 7 }}{% for x in ().__class__.__bases__ %}{% endfor %}",
    "a format": "%s %(payload)s {0} {0.__class__} %n",
    "a lookup": "${jndi:ldap://x/y}",
    "a path": "../../../etc/passwd",
    "a command": "$(touch /tmp/never) `id` | cat ; &",
    "a URL": "javascript:alert(1)//https://x",
    "markup of a terminal": "[red]x[/red][link=https://x]y",
    "an encoded word": "=?utf-8?q?=0D=0ABcc:_x?=",
    "two addresses": "a@example.com, b@example.com",
    "two addresses, semicolon": "a@example.com;b@example.com",
    "two addresses, space": "a@example.com b@example.com",
    "two @": "a@b@example.com",
    "a name and an address": "A <a@example.com>",
    "a quoted address": '"a b"@example.com',
    "an address with a comment": "a(x)@example.com",
    "an address with a header": "a@example.com\r\nBcc: b@example.com",
    "an address with NUL": "a\0@example.com",
    "an address with a route": "<@x.com,@y.com:a@example.com>",
    "an address at an IP": "a@[127.0.0.1]",
    "an address without a dot": "a@localhost",
    "empty": "",
    "space": " ",
    "spaces that are none": "\u200b\u3000",
    "emoji": "👩‍👩‍👧‍👦" * 8,
    "BOM": "\ufeffa",
    "combining": "a" + "\u0301" * 100,
    "just long": "x" * 191,
    "long": "x" * 300,
    "a long address": "x" * 250 + "@example.com",
    "a number": "-1",
    "JSON": '{"a": 1}',
    "null": "null",
    "a time": "2026-02-30T25:61:00Z",
    "a time, almost": "2026-11-23 09:30",
    "infinity": "infinity",
    "a time out of the calendar": "0000-01-01T00:00:00Z",
    "digits of others": "٢٠٢٦-١١-٢٣T09:30:00Z",
}

OTHERS: dict[str, Any] = {
    "no": False,
    "yes": True,
    "zero": 0,
    "minus one": -1,
    "a fraction": 1.5,
    "huge": 10**30,
    "2^63": 2**63,
    "tiny": 1e-300,
    "a list": [],
    "a list of texts": ["a"],
    "a list of lists": [[["a"]]],
    "an object": {},
    "an object in an object": {"a": {"$ne": None}},
    "a prototype": {"__proto__": {"admin": True}, "constructor": 1},
    "deep": json.loads("[" * 70 + "]" * 70),
}

VALUES: dict[str, Any] = {**TEXTS, **OTHERS, "nothing": None}

_ADDRESS = re.compile(r"[a-z]{1,64}@[a-z]+\.[a-z]+")
_DIRECTIONS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Rule = Callable[[Any], bool]
"""Whether a value is taken in a place of that kind."""


def is_control(one: str) -> bool:
    return unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs") or one in _DIRECTIONS


def readable(value: Any, depth: int = 60) -> bool:
    """JSON that means something, and is not too deep."""
    if isinstance(value, str):
        return not any(unicodedata.category(one) == "Cs" for one in value)
    return depth > 0 and all(readable(one, depth - 1) for one in _inner(value))


def storable(value: Any) -> bool:
    """JSON that the database stores too."""
    return readable(value) and "\\u0000" not in json.dumps(value)


def _inner(value: Any) -> Any:
    return (
        list(value.values()) + list(value)
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else ()
    )


def _inner(value: Any) -> Any:
    return (
        list(value.values()) + list(value)
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else ()
    )


def visible(text: str) -> str:
    """What is left of a text that is only shown."""
    return "".join(one for one in text if not is_control(one))


def identifying(longest: int, *, optional: bool = False) -> Rule:
    def rule(value: Any) -> bool:
        if value is None or value == "":
            return optional
        return isinstance(value, str) and len(value) <= longest and not any(map(is_control, value))

    return rule


def one_address(value: Any) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def a_name(value: Any) -> bool:
    return isinstance(value, str) and readable(value) and bool(visible(value).strip())


def shown(value: Any) -> bool:
    return value is None or (isinstance(value, str) and readable(value))


def no_time(value: Any) -> bool:
    """None of the values is a time; without one the present counts."""
    return value is None or value == ""


def a_delay(value: Any) -> bool:
    """Seconds; none of the texts is a duration."""
    number = type(value) in (int, float) and 0 <= value <= 100 * 365 * 86400
    return number or value is None or value == ""


def whole(low: int, high: int) -> Rule:
    return lambda value: value is None or (type(value) is int and low <= value <= high)


def a_filter(value: Any) -> bool:
    return value is None or (isinstance(value, str) and storable(value))


def a_flag(value: Any) -> bool:
    return isinstance(value, bool)


HOUR = timedelta(hours=1)
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def target(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The service, with an admin's token and without impatience or a limit that matters."""
    more: Any = {
        "modules": ("pgqueue_service.notifications", "tests.support.some_tasks"),
        "signin_limit": (1_000_000, HOUR),
        "request_timeout": HOUR / 60,
    }
    async with open_api(settings, **more) as client:
        client.headers.update(ADMIN)
        yield client


async def everything(connection: AsyncConnection[Any]) -> list[dict[str, Any]]:
    """What is stored, but for the heartbeats."""
    return await sql(
        connection,
        """SELECT (SELECT md5(string_agg(j::text, '' ORDER BY j.id)) FROM job_logs j) AS jobs,
                  (SELECT md5(string_agg(q::text, '' ORDER BY q.queue)) FROM job_queues q)
                    AS queues,
                  (SELECT md5(string_agg(t::text, '' ORDER BY t.job_type)) FROM job_types t)
                    AS types""",
    )


INSIDES = ("Traceback", "psycopg", "msgspec", "codec", 'relation "', 'column "', 'File "', "0x")
"""What would tell a stranger how it looks in here."""


def clearly_refused(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """A problem in a sentence for people, that gives nothing away."""
    assert response.status_code in statuses, (response.status_code, response.text[:500])
    body = problem(response, response.status_code)
    sentence = body["error"]
    assert 12 <= len(sentence) <= 500, sentence
    assert " " in sentence
    assert not any(
        word in sentence
        for word in ("Traceback", "psycopg", "msgspec", 'relation "', 'column "', 'File "', "0x")
    ), sentence
    assert not any(map(is_control, sentence)), sentence
    assert leaks(sentence, set()) == []
    return body


def no_header_was_split(response: httpx.Response) -> None:
    assert not any(
        one in name + content
        for name, content in response.headers.raw
        for one in (b"\r", b"\n", b"\0")
    )
    assert "bcc" not in response.headers


async def dead(connection: AsyncConnection[Any], job_id: str = "dead") -> None:
    kind, user = signin.JOB_TYPE, "u1"
    await a_job(
        connection,
        job_id=job_id,
        status="dlq",
        job_type=kind,
        user_id=user,
        payload=SIGN_IN,
        error="failed",
    )
