"""A worker that dies, or freezes, while it sends a mail. The full size of the kills is `python -m
tests.chaos.mail_steps`."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from pgqueue_service.notifications import notify_of_sign_in, send_custom_email
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.settings import Settings
from tests.chaos.mail_kills import STEPS, Lane
from tests.chaos.mail_steps import MODES, as_promised, counted
from tests.support.factories import the_job
from tests.support.post_office import post_office
from tests.support.processes import a_worker, log_lines
from tests.support.scene import published, until

Connection = AsyncConnection[Any]


@pytest.fixture(autouse=True)
async def types(connection: Connection, settings: Settings) -> None:
    await published(connection, settings, notify_of_sign_in, send_custom_email)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("mode", MODES)
async def test_a_worker_killed_at_any_step_loses_no_mail_and_doubles_only_what_the_server_had(
    database_url: str, tmp_path: Path, mode: str, half: int
) -> None:
    """Every other step, so that the halves can go side by side. `hold` doubles none, and says of
    each that it did not send."""
    steps = list(STEPS)[half::2]
    kills = await Lane(mode, mode, database_url, tmp_path).run(steps)
    assert sorted(kill.step for kill in kills) == sorted(steps)
    assert [kill for kill in kills if not as_promised(kill)] == []
    rows = counted(kills)
    assert sum(row["missing"] + row["pending"] for row in rows) == 0
    assert {row["step"] for row in rows if row["doubled"]} <= (
        {"delivered", "answered"} if mode == "resend" else set()
    )


async def test_a_worker_that_was_frozen_before_the_message_does_not_send_it_when_it_wakes(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    """It sleeps when the server says that it may go on; meanwhile another one rescues its job and
    sends the mail. (That the lease alone decides, whatever the other one does, is told by
    tests/engine/test_intents.py.)"""
    async with (
        post_office() as office,
        AsyncClient.open(database_url) as client,
        a_worker(
            database_url,
            tmp_path / "first",
            "--modules",
            "pgqueue_service.notifications",
            **by_mail(office.port),
        ) as first,
    ):
        frozen, sent = asyncio.Event(), asyncio.Event()

        async def doorman(step: str, to: str) -> bool:
            if step == "data" and not frozen.is_set():
                first.send_signal(signal.SIGSTOP)
                frozen.set()
                await sent.wait()
                first.send_signal(signal.SIGCONT)
            return True

        office.doorman = doorman
        payload = {"userId": "u1", "email": "someone@example.com", "name": "Болд"}
        await client.enqueue(notify_of_sign_in, payload, job_id="j")
        await frozen.wait()
        async with a_worker(
            database_url,
            tmp_path / "second",
            "--modules",
            "pgqueue_service.notifications",
            **by_mail(office.port),
        ):
            await until(lambda: completed(connection), 60)
        sent.set()
        await until(
            lambda: any(line["event"] == "lease.lost" for line in log_lines(tmp_path / "first"))
        )
        await until(lambda: bool(office.cut))
        assert first.returncode is None
    assert len(office.delivered) == 1
    assert office.cut == [("someone@example.com", b"")], "not a byte of it"
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["intent_at"]) == ("completed", 2, None)


def by_mail(port: int) -> dict[str, str]:
    """With a lease that leaves a second to each step of sending."""
    sender = {
        "MAIL_TRANSPORT": "smtp",
        "MAIL_FROM": "no-reply@example.org",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
    }
    return sender | {"PGQUEUE_LEASE": "3s"}


async def completed(connection: Connection) -> bool:
    return bool((await the_job(connection, "j"))["status"] == "completed")
