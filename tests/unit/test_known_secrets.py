"""Nothing that is kept of an error shows a whole address, a token or a password: not the row, not
the answer, not the log."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as chosen
from hypothesis import strategies as st
from litestar.exceptions import HTTPException
from pgqueue_service.api.problems import Refusal, refusal
from pgqueue_service.notifications.mail.transports import open_transport
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue import known_secrets as secrecy
from pgqueue.attempt import Claim, Job
from pgqueue.client import AsyncClient
from pgqueue.errors import (
    DependencyDown,
    Discard,
    DuplicatePayload,
    InvalidJob,
    JobNotFound,
    RateLimited,
    Retry,
    SchemaError,
    Snooze,
    UnknownType,
    WrongState,
)
from pgqueue.logs import HumanFormatter, JsonFormatter
from pgqueue.masking import clean, mask
from pgqueue.policy import Undecodable, verdict
from pgqueue.task import task
from tests.support.factories import sql
from tests.support.logged import leaks
from tests.support.mailservers import NOW, a_mail, scripted, smtp_settings
from tests.support.scene import published, until, working

LOCAL = st.text(
    alphabet="abcdefghijklmnopqrstuvwxyzABC0123456789.!#$%&'*+-/=?^_`{|}~", min_size=3, max_size=64
)
DOMAINS = st.sampled_from(
    [
        "example.com",
        "mail.example.co.uk",
        "xn--80ak6aa92e.com",
        "жишээ.мон",
        "EXAMPLE.ORG",
        "a-b.example.mn",
    ]
)
ADDRESSES = st.builds(
    lambda local, domain: f"{local}@{domain}", LOCAL.filter(lambda one: "***" not in one), DOMAINS
)
SECRETS = st.sampled_from(
    [
        "postgresql://queue:s3cr3t-word@db.internal:5432/jobs",
        "postgres://queue:s3cr3t-word@db/jobs?sslmode=require",
        "host=db user=queue password=s3cr3t-word dbname=jobs",
        "host=db password='s3cr3t-word with a space'",
        "Authorization: Bearer s3cr3t-word",
        "{'Authorization': 'Bearer s3cr3t-word'}",
        "SMTP_PASSWORD=s3cr3t-word",
        '{"api_key": "s3cr3t-word"}',
        "smtp://mailer:s3cr3t-word@mail.example.com:587",
    ]
)
AROUND = st.sampled_from(
    [
        "{}",
        "no mailbox {}",
        "<{}>",
        "to={};",
        '"{}"',
        "'{}'",
        "mailto:{}",
        "({})",
        "[{}]",
        "a {} b {}",
        "x\n{}\ny",
    ]
)
TEXTS = st.builds(lambda around, what: around.replace("{}", what), AROUND, ADDRESSES | SECRETS)
LONG = st.builds(lambda text, times: f"{text} " * times, TEXTS, st.integers(1, 400))


def grouped(text: str) -> Exception:
    return ExceptionGroup(text, [ValueError(text), KeyError(text)])


def noted(text: str) -> Exception:
    error = ValueError("a note follows")
    error.add_note(text)
    return error


def caused(text: str) -> Exception:
    try:
        try:
            raise KeyError(text)
        except KeyError as inner:
            raise RuntimeError("it failed") from inner
    except RuntimeError as outer:
        return outer


def in_the_code(text: str) -> Exception:
    try:
        exec(compile(f"raise ValueError({text!r})", text, "exec"))
    except ValueError as error:
        return error
    raise AssertionError


ERRORS: list[Callable[[str], BaseException]] = [
    ValueError,
    KeyError,
    OSError,
    Discard,
    Undecodable,
    lambda text: Retry(text),
    lambda text: Snooze(timedelta(), text),
    lambda text: DependencyDown("mail", text),
    lambda text: ValueError({"to": [text], "x": (1, text)}),
    lambda text: FileNotFoundError(2, "No such file", text),
    lambda text: UnicodeDecodeError("utf-8", text.encode(), 0, 1, text),
    lambda text: psycopg.errors.UniqueViolation(
        f"duplicate key\nDETAIL:  Key (email)=({text}) already exists."
    ),
    msgspec.ValidationError,
    grouped,
    noted,
    caused,
    in_the_code,
]


def a_claim(attempt: int) -> Claim:
    return Claim("0" * 32, 1, "j", "t", "u", attempt, 5, b"{}", NOW, "default")


@chosen(max_examples=600, deadline=None)
@given(st.sampled_from(ERRORS), TEXTS | LONG, st.sampled_from([1, 5]))
def test_no_outcome_of_an_attempt_does(
    make: Callable[[str], BaseException], text: str, attempt: int
) -> None:
    outcome = verdict(a_claim(attempt), make(text))
    kept = re.sub(
        r"\*{1,2}…", "***", f"{outcome.error}\n{outcome.stack_trace}"
    )  # a mask that was cut
    assert leaks(kept, {"s3cr3t-word"}) == []


REFUSALS: list[Callable[[str], Exception]] = [
    lambda text: Refusal(400, text),
    lambda text: Refusal(409, text, job_status="dlq", error_id="x"),
    InvalidJob,
    UnknownType,
    JobNotFound,
    DuplicatePayload,
    SchemaError,
    RuntimeError,
    psycopg.OperationalError,
    lambda text: RateLimited(text, timedelta(seconds=1)),
    lambda text: WrongState("j", "completed", text),
    lambda text: HTTPException(text, status_code=400),
    lambda text: HTTPException(text, status_code=418),
    TimeoutError,
]


@chosen(max_examples=300, deadline=None)
@given(st.sampled_from(REFUSALS), TEXTS | LONG)
def test_no_problem_does(make: Callable[[str], Exception], text: str) -> None:
    """But for `jobId`, which is the caller's own word for it."""
    problem = json.loads(msgspec.json.encode(refusal(make(text)).problem()))
    problem.pop("jobId", None)
    assert (
        leaks(
            re.sub(r"\*{1,2}\"", '***"', json.dumps(problem, ensure_ascii=False)), {"s3cr3t-word"}
        )
        == []
    )
    assert "\n" not in problem["error"]
    assert len(problem["error"]) <= 500


SOME = [
    "sent to ana.maria@example.com",
    "postgresql://queue:s3cr3t-word@db.internal/jobs",
    "Authorization: Bearer s3cr3t-word",
]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_no_row_does(
    connection: AsyncConnection[Any], settings: ServiceSettings, attempts: int
) -> None:
    """Whatever a handler raises, over all its attempts: columns and history."""

    @task("test.job", max_attempts=attempts)
    async def failing(job: Job[Any]) -> None:
        error = ERRORS[job.payload["error"]](SOME[job.payload["text"]])
        raise error

    await published(connection, settings, failing)
    wanted = len(ERRORS) * len(SOME)
    async with AsyncClient.open(settings) as client, working(settings, failing):
        for number in range(wanted):
            await client.enqueue(
                failing,
                {"error": number // len(SOME), "text": number % len(SOME)},
                job_id=f"j{number}",
            )

        async def all_failed() -> bool:
            (row,) = await sql(
                connection, "SELECT count(*) FILTER (WHERE error IS NOT NULL) AS n FROM job_logs"
            )
            return bool(row["n"] == wanted)

        await until(all_failed)
        if attempts > 1:
            await sql(connection, "UPDATE job_logs SET run_after = now() WHERE status = 'failed'")

            async def none_left() -> bool:
                return (
                    await sql(
                        connection, "SELECT FROM job_logs WHERE status IN ('failed', 'processing')"
                    )
                    == []
                )

            await until(none_left)
    rows = await sql(
        connection,
        "SELECT job_id, error, stack_trace, history FROM job_logs WHERE error IS NOT NULL",
    )
    for row in rows:
        assert (
            leaks(f"{row['error']}\n{row['stack_trace']}\n{row['history']}", {"s3cr3t-word"}) == []
        ), row["job_id"]
    assert sum(row["stack_trace"] is not None for row in rows) > wanted / 2


HARD = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x4FF, exclude_categories=["Cs", "Cc"]),
    min_size=8,
    max_size=40,
)


@chosen(deadline=None, max_examples=60)
@given(
    HARD.filter(lambda one: len(one.strip()) >= 8),
    st.sampled_from(["mailer", "m@example.com", "мэйл"]),
)
def test_a_secret_of_ours_is_in_no_text_however_it_is_spelled(secret: str, user: str) -> None:
    secrecy._known = {}
    url = f"postgresql://u:{quote(secret, safe='')}@h/x"
    ServiceSettings(
        smtp_password=secret, smtp_user=user, admin_tokens=(f"{secret}1",), database_url=url
    )
    octets = secret.encode()
    spelled = [
        secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1],
        repr(octets)[2:-1],
        b64encode(octets).decode(), b64encode(b"\0" + user.encode() + b"\0" + octets).decode(),
    ]  # fmt: skip
    for one in spelled:
        for text in (
            f"535 wrong: {one}",
            f"535 <{one}> for {user}",
            one if secret.isalpha() else f"x{one}-",
        ):
            assert one.rstrip("=") not in mask(text)
            assert one.rstrip("=") not in clean(f"{text} " * 400, 2_000, keep="end")


def test_a_word_that_is_a_secret_is_left_where_it_is_part_of_another() -> None:
    ServiceSettings(smtp_password="correcthorse")
    assert mask("not correcthorses, but correcthorse.") == "not correcthorses, but ***."


REPEATING = "q7Hk+29s/Zx1 =LmPq&"


@pytest.mark.parametrize(
    "said",
    [
        "no {secret} for you",
        "AUTH PLAIN {plain}",
        "{login} is wrong",
        "{quoted}",
        "{secret}{secret}",
        "<{secret}>",
    ],
)
async def test_a_mail_server_that_repeats_the_password_tells_it_to_nobody(
    connection: AsyncConnection[Any],
    settings: ServiceSettings,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = b64encode(f"\0mailer\0{REPEATING}".encode()).decode()
    spelled = {
        "secret": REPEATING,
        "plain": plain,
        "login": b64encode(REPEATING.encode()).decode(),
        "quoted": quote(REPEATING),
    }
    reply = said.format(**spelled)
    script = {
        "EHLO": "250-hello\r\n250 AUTH PLAIN LOGIN",
        "AUTH": f"535-5.7.8 {reply}\r\n535 5.7.8 {reply}",
    }
    async with scripted(script) as server, AsyncClient.open(settings) as client:
        mail = smtp_settings(server.port, smtp_user="mailer", smtp_password=REPEATING)

        @task("test.job", max_attempts=1)
        async def mailing(job: Job[Any]) -> None:
            try:
                async with open_transport(mail) as transport:
                    await transport.send(a_mail())
            except DependencyDown as down:
                job.receipt = reply
                raise RuntimeError(f"{down}; {reply}") from down

        await published(connection, settings, mailing)
        async with working(settings, mailing):
            await client.enqueue(mailing, {}, job_id="j")

            async def dead() -> bool:
                return bool(
                    await sql(connection, "SELECT 1 AS one FROM job_logs WHERE status = 'dlq'")
                )

            await until(dead)
    (row,) = await sql(connection, "SELECT error, stack_trace, receipt, history FROM job_logs")
    logged = "".join(
        formatter.format(one)
        for one in caplog.records
        for formatter in (JsonFormatter(), HumanFormatter())
    )
    for kept in (*map(str, row.values()), logged):
        assert [one for one in spelled.values() if one.rstrip("=") in kept or one in kept] == []


@pytest.mark.parametrize(
    "label", ["password", "Password", "token", "secret", "api_key", "passwd", "Bearer", "tokens"]
)
def test_a_secret_that_is_a_label_does_not_blind_the_patterns_to_what_follows_it(
    label: str,
) -> None:
    secrecy.learn([label])
    for text in (
        f"{label}=hunter2",
        f"x {label}: hunter2",
        f'{{"{label}": "hunter2"}}',
        f"{label}%3Dhunter2",
    ):
        assert label == "Bearer" or "hunter2" not in mask(text), text
    assert "hunter2" not in mask("Authorization: Bearer hunter2")
    assert label not in mask(f"refused {label}, for ana")
