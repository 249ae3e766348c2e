"""R15, at the other end: what was taken is mailed to one address, in the header fields that a mail
has, and shows no markup."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from pgqueue_service.notifications import lifespan, notify_of_sign_in, send_custom_email
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue.testing import run
from tests.support import hostile
from tests.support.api import SIGN_IN, SIGNIN
from tests.support.factories import the_job
from tests.support.hostile import TEXTS, target
from tests.support.mailservers import Inbox, inbox, smtp_settings

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]


class Tags(HTMLParser):
    """What a page is made of: its tags with their attributes, comments and declarations."""

    def __init__(self, mail: EmailMessage) -> None:
        super().__init__()
        self.found: list[Any] = []
        page = mail.get_body(("html",))
        assert page is not None
        self.feed(page.get_content())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_comment(self, data: str) -> None:
        self.found.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


@asynccontextmanager
async def post_office(
    settings: ServiceSettings,
) -> AsyncIterator[tuple[httpx.AsyncClient, Inbox, Any]]:
    async with target(settings) as api, inbox() as box, lifespan(smtp_settings(box.port)) as mailer:
        yield api, box, mailer


def looks_like(mail: EmailMessage, plain: EmailMessage) -> None:
    """The same header fields, once each, and the same page."""
    assert [name.lower() for name in mail] == [name.lower() for name in plain]
    assert mail["To"] == plain["To"]
    assert [part.get_content_type() for part in mail.walk()] == [
        part.get_content_type() for part in plain.walk()
    ]
    assert Tags(mail).found == Tags(plain).found


@pytest.mark.parametrize("locale", ["mn", "en"])
async def test_a_sign_in(settings: ServiceSettings, connection: Connection, locale: str) -> None:
    async with post_office(settings) as (api, box, mailer):
        for text in ["plain", *TEXTS.values()]:
            event = (
                SIGN_IN
                | dict.fromkeys(("name", "provider", "userAgent", "ipAddress"), text)
                | {"locale": locale}
            )
            response = await api.post(SIGNIN, content=json.dumps(event), headers=hostile.JSON)
            if response.status_code == 202:
                stored = (await the_job(connection, response.json()["jobId"]))["payload"]
                assert (
                    await run(notify_of_sign_in, stored, resources=mailer)
                ).status == "completed"
    assert len(box.mails) > 50
    assert set(map(tuple, box.recipients)) == {(SIGN_IN["email"],)}
    for mail in box.mails:
        looks_like(mail, box.mails[0])
        assert mail["Subject"] == box.mails[0]["Subject"]


@pytest.mark.parametrize("member", ["subject", "body"])
async def test_a_custom_mail(
    settings: ServiceSettings, connection: Connection, member: str
) -> None:
    plain = {"to": "someone@example.com", "subject": "Subject", "body": "Body"}
    sent = []
    async with post_office(settings) as (api, box, mailer):
        for text in ["plain", *TEXTS.values()]:
            response = await api.post(
                "/api/admin/send-email",
                content=json.dumps(plain | {member: text}),
                headers=hostile.JSON,
            )
            if response.status_code == 202:
                sent.append(text)
                stored = (await the_job(connection, response.json()["jobId"]))["payload"]
                assert (
                    await run(send_custom_email, stored, resources=mailer)
                ).status == "completed"
    assert set(map(tuple, box.recipients)) == {(plain["to"],)}
    for text, mail in zip(sent, box.mails, strict=True):
        if member == "subject":
            looks_like(mail, box.mails[0])
            assert mail["Subject"].strip() == text.strip()
        elif "\n" not in text and "\r" not in text:  # a line is a line, and so a <br>
            looks_like(mail, box.mails[0])
