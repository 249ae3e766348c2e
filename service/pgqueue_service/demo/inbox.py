"""A mail server on loopback for the demonstration: keeps what it is sent, and misbehaves where it
is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Inbox:
    """`fails`: address -> how often it is still refused for now (451). `unknown`: addresses that do
    not exist (550)."""

    fails: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    mails: list[EmailMessage] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address in self.unknown:
            return "550 5.1.1 No such user here"
        if self.fails.get(address, 0) > 0:
            self.fails[address] -= 1
            return "451 4.3.0 Mailbox busy, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        self.mails.append(
            message_from_bytes(
                content if isinstance(content, bytes) else b"", policy=policy.default
            )
        )
        return f"250 2.0.0 Ok: kept as {len(self.mails)}"


@asynccontextmanager
async def open_inbox(inbox: Inbox) -> AsyncIterator[Inbox]:
    """Serves while the block runs; `inbox.port` tells where."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(inbox, hostname="inbox.example", loop=loop), "127.0.0.1", 0
    )
    async with server:
        inbox.port = server.sockets[0].getsockname()[1]
        yield inbox
