"""Mail servers on loopback for the tests: a real one (aiosmtpd), one that misbehaves by script, and
a stand-in for SendGrid."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP as Protocol
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from pgqueue_service.notifications.mail.message import Mail, message_id
from pgqueue_service.settings import ServiceSettings

PATIENT = timedelta(seconds=10)
SHORT = timedelta(milliseconds=200)


def parsed(message: bytes) -> EmailMessage:
    return BytesParser(policy=default).parsebytes(message)


def a_mail(**changes: Any) -> Mail:
    values: dict[str, Any] = {
        "to": "user.name@example.com",
        "subject": "🔐 Сайн уу",
        "text": "Сайн байна уу,\n",
        "html": "<p>Сайн байна уу,</p>\n",
        "message_id": message_id("job-1", "example.org"),
    }
    return Mail(**(values | changes))


def smtp_settings(port: int, **changes: Any) -> ServiceSettings:
    values: dict[str, Any] = {
        "mail_transport": "smtp",
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "mail_from": "Yellow Books <no-reply@example.org>",
        "mail_timeout": PATIENT,
        "lease": timedelta(seconds=60),
    }
    return ServiceSettings(**(values | changes))


@dataclass
class Inbox:
    """What aiosmtpd took. `opened` counts connections, `encrypted` says of each mail whether it
    came over TLS."""

    port: int = 0
    opened: int = 0
    open_now: int = 0
    most_open: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_DATA(self, _server: Any, session: Session, envelope: Envelope) -> str:
        content = cast(bytes, envelope.content)
        self.raw.append(content)
        self.mails.append(parsed(content))
        self.recipients.append([str(one) for one in envelope.rcpt_tos])
        self.encrypted.append(session.ssl is not None)
        return "250 2.0.0 Ok: queued as 4XYZ"


@asynccontextmanager
async def inbox(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    login: tuple[str, str] | None = None,
) -> AsyncIterator[Inbox]:
    """A mail server that works: plain, with STARTTLS, or with TLS from the first byte; with a login
    when one is given."""
    box = Inbox()

    def authenticate(
        _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        box.logins.append(given)
        return AuthResult(success=given == login, handled=False)

    class Counted(Protocol):
        def connection_made(self, transport: Any) -> None:
            if not hasattr(self, "counted"):  # STARTTLS makes a connection a second time
                self.counted = True
                box.opened += 1
                box.open_now += 1
                box.most_open = max(box.most_open, box.open_now)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            box.open_now -= 1
            super().connection_lost(error)

    def protocol() -> Protocol:
        return Counted(
            box,
            hostname="inbox.example.org",
            tls_context=starttls,
            authenticator=authenticate if login else None,
            auth_required=login is not None,
            auth_require_tls=starttls is not None,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()


class Drop:
    """The connection is closed without an answer."""


@dataclass
class Hang:
    """No answer, ever. `reached` is set when the server has come to it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Last:
    """This answer, and then the connection is closed."""

    reply: str


@dataclass(frozen=True)
class Raw:
    """These bytes, and then nothing more, ever."""

    data: bytes


@dataclass(frozen=True)
class Endless:
    """These bytes again and again, until the client has gone."""

    data: bytes


Action = str | Drop | Hang | Last | Raw | Endless
Script = Mapping[str, Action | Sequence[Action]]

POLITE: dict[str, Action] = {
    "greeting": "220 scripted.example.org ESMTP",
    "EHLO": "250-scripted.example.org\r\n250 SIZE 1000000",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 go on",
    "DOT": "250 2.0.0 Ok: queued as 1",
    "RSET": "250 2.0.0 Ok",
    "NOOP": "250 2.0.0 Ok",
    "QUIT": Last("221 2.0.0 bye"),
}


@dataclass
class Scripted:
    """A server that answers by script. `heard` holds (connection, verb) of each command, `lines`
    the whole commands."""

    scripts: Sequence[Script]
    port: int = 0
    opened: int = 0
    heard: list[tuple[int, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def verbs(self, connection: int) -> list[str]:
        return [verb for number, verb in self.heard if number == connection]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        number = self.opened
        turns = Turns(POLITE | dict(self.scripts[min(number, len(self.scripts)) - 1]))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                going = await act(turns.next("greeting"), reader, writer)
                while going and (line := await reader.readline()):
                    verb = line.split()[0].decode().upper()
                    self.heard.append((number, verb))
                    self.lines.append(line.decode().rstrip())
                    action = turns.next(verb)
                    going = await act(action, reader, writer)
                    if action == POLITE["DATA"]:
                        await reader.readuntil(b"\r\n.\r\n")
                        self.heard.append((number, "DOT"))
                        going = await act(turns.next("DOT"), reader, writer)
        finally:
            writer.close()


@dataclass
class Turns:
    """What is done at a step: for a list one after the other, the last of it for ever."""

    script: Mapping[str, Action | Sequence[Action]]
    taken: dict[str, int] = field(default_factory=dict)

    def next(self, step: str) -> Action:
        planned = self.script.get(step, "502 5.5.1 what?")
        if isinstance(planned, Action):
            return planned
        self.taken[step] = self.taken.get(step, 0) + 1
        return planned[min(self.taken[step], len(planned)) - 1]


async def act(action: Action, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Does it; whether the connection goes on."""
    if isinstance(action, Drop):
        return False
    if isinstance(action, Hang):
        action.reached.set()
        await reader.read()
        return False
    if isinstance(action, Raw):
        writer.write(action.data)
        await reader.read()
        return False
    if isinstance(action, Endless):
        while True:
            writer.write(action.data)
            await writer.drain()
    writer.write((action.reply if isinstance(action, Last) else action).encode() + b"\r\n")
    await writer.drain()
    return isinstance(action, str)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None,
) -> AsyncIterator[int]:
    """The port of a server whose conversations have all ended when the block has."""
    conversations: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast(asyncio.Task[Any], asyncio.current_task())
        conversations[task] = writer
        await serve(reader, writer)

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in conversations.values():
            writer.transport.abort()
        await asyncio.gather(*conversations)


@asynccontextmanager
async def scripted(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """The first connection follows the first script, the second the second; the last script is for
    all that come after."""
    state = Scripted(scripts or [{}])
    async with listening(state.serve, tls) as state.port:
        yield state


@dataclass
class SendGrid:
    """A stand-in that gives every request the same answer; None is no answer at all."""

    status: int | None
    headers: dict[str, str]
    body: str
    port: int = 0
    opened: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                    self.heads.append(head)
                    length = re.search(r"(?i)content-length: *([0-9]+)", head)
                    self.requests.append(
                        json.loads(await reader.readexactly(int(length[1]) if length else 0))
                    )
                    if self.status is None:
                        await reader.read()
                        return
                    fields = {"Content-Length": str(len(self.body.encode())), **self.headers}
                    lines = [
                        f"HTTP/1.1 {self.status} Said",
                        *(f"{name}: {value}" for name, value in fields.items()),
                    ]
                    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + self.body.encode())
                    await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def sendgrid(
    status: int | None,
    headers: dict[str, str] | None = None,
    body: str = "",
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[SendGrid]:
    state = SendGrid(status, headers or {}, body)
    async with listening(state.serve, tls) as state.port:
        yield state


def sendgrid_settings(port: int, **changes: Any) -> ServiceSettings:
    values: dict[str, Any] = {
        "mail_transport": "sendgrid",
        "sendgrid_api_key": "SG.a-secret-key",
        "sendgrid_from_email": "no-reply@example.org",
        "sendgrid_url": f"http://127.0.0.1:{port}",
        "mail_timeout": PATIENT,
        "lease": timedelta(seconds=60),
    }
    return ServiceSettings(**(values | changes))


NOW = datetime(2026, 11, 23, 10, 5, 9, tzinfo=UTC)
