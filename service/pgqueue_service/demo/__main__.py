"""`python3 dev.py demo`: shows how sign-ins become delivered e-mails."""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import click
import httpx

from pgqueue.embedded.server import ServerUnavailable
from pgqueue_service.demo.inbox import Inbox
from pgqueue_service.demo.system import Broken, the_system

COLOURS = {
    "enqueued": "cyan",
    "processing": "blue",
    "completed": "green",
    "failed": "yellow",
    "dlq": "red",
}
JOB_TIMEOUT_SECONDS = 60.0
"""Seconds that the slowest of the jobs may take."""

SIGN_INS = {
    "ana": ("ana@example.com", "Ana", "a healthy one"),
    "bat": ("bat@example.com", "Bat", "the mail server refuses it twice, for now"),
    "tsetseg": ("tsetseg@exmaple.com", "Tsetseg", "an address that does not exist"),
}


@dataclass
class Show:
    """Prints what happens, with the seconds since the start."""

    client: httpx.AsyncClient
    begun: float = field(default_factory=time.monotonic)
    seen: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def say(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self.begun:6.2f} s  {text}")

    async def post(self, user: str) -> str:
        email, name, what = SIGN_INS[user]
        body = {
            "userId": user,
            "email": email,
            "name": name,
            "provider": "google",
            "ipAddress": "203.0.113.7",
        }
        body |= {
            "userAgent": "Firefox 140 on Linux",
            "jobId": f"signin-{user}-{time.time_ns()}",
            "locale": "en",
        }
        answer = await self.client.post("/api/jobs/signin-notification", json=body)
        answer.raise_for_status()
        self.say(
            f"{user:8} signs in: HTTP {answer.status_code} in "
            f"{answer.elapsed.total_seconds() * 1000:.0f} ms ({what})"
        )
        return str(answer.json()["jobId"])

    async def watch(self, jobs: dict[str, str], until: dict[str, str]) -> None:
        """Shows every change of the jobs (user -> id) until each is in the state wanted."""
        async with asyncio.timeout(JOB_TIMEOUT_SECONDS):
            while True:
                states = {user: await self._look(user, job_id) for user, job_id in jobs.items()}
                if all(states[user] == wanted for user, wanted in until.items()):
                    return
                await asyncio.sleep(0.02)

    async def _look(self, user: str, job_id: str) -> str:
        job = (await self.client.get(f"/api/jobs/{job_id}")).json()
        now = (job["status"], job["attemptCount"])
        if self.seen.get(user) != now:
            self.seen[user] = now
            why = f": {job['error']}" if job["error"] and job["status"] in ("failed", "dlq") else ""
            status = click.style(f"{job['status']:10}", fg=COLOURS.get(job["status"]))
            self.say(f"{user:8} {status} attempt {job['attemptCount']}{why}")
        return str(job["status"])


async def demo(folder: Path) -> None:
    inbox = Inbox(fails={SIGN_INS["bat"][0]: 2}, unknown={SIGN_INS["tsetseg"][0]})
    click.echo("Starting Postgres, the API, one worker, and a mail server to receive it all ...")
    begun = time.monotonic()
    async with the_system(inbox, folder) as client:
        click.echo(
            f"... up after {time.monotonic() - begun:.1f} s: {client.base_url}, mail server on "
            f"port {inbox.port}\n"
        )
        show = Show(client)
        jobs = {user: await show.post(user) for user in SIGN_INS}
        await show.watch(jobs, {"ana": "completed", "bat": "completed", "tsetseg": "dlq"})
        click.echo("\nThe mail that ana got:\n")
        click.echo(readable(next(mail for mail in inbox.mails if "ana" in str(mail["To"]))))
        await replay(show, inbox, jobs["tsetseg"])
        summary(show, inbox)


async def replay(show: Show, inbox: Inbox, job_id: str) -> None:
    """Act as an operator: read the dead-letter queue, correct the address, replay the job."""
    dead = (await show.client.get("/api/admin/dlq")).json()["jobs"]
    payload = next(job["payload"] for job in dead if job["jobId"] == job_id) | {
        "email": "tsetseg@example.com"
    }
    click.echo(
        f"In the dead-letter queue: {len(dead)} job. The operator corrects the address and "
        "replays the job.\n"
    )
    answer = await show.client.post(f"/api/admin/dlq/retry/{job_id}", json={"payload": payload})
    answer.raise_for_status()
    show.say(f"tsetseg  replayed: HTTP {answer.status_code}")
    await show.watch({"tsetseg": job_id}, {"tsetseg": "completed"})


def readable(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    text = body.get_content() if body else ""
    lines = [f"{name}: {mail[name]}" for name in ("From", "To", "Subject", "Date", "Message-ID")]
    return (
        "\n".join("    | " + line for line in [*lines, "", *str(text).rstrip().splitlines()]) + "\n"
    )


def summary(show: Show, inbox: Inbox) -> None:
    ids = [str(mail["Message-ID"]) for mail in inbox.mails]
    click.echo(
        f"\n{len(SIGN_INS)} sign-ins, {len(inbox.mails)} mails delivered, "
        f"{len(ids) - len(set(ids))} of them twice, "
        f"{time.monotonic() - show.begun:.1f} s."
    )
    if len(ids) != len(SIGN_INS) or len(set(ids)) != len(ids):
        raise Broken(f"{len(SIGN_INS)} mails were expected, each once")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pgqueue-demo-") as folder:
        try:
            asyncio.run(demo(Path(folder)))
        except (Broken, ServerUnavailable, httpx.HTTPError, TimeoutError) as error:
            logs = "".join(
                f"\n{path.name}:\n{path.read_text()[-3000:]}"
                for path in sorted(Path(folder).glob("*.log"))
            )
            click.echo(f"the demonstration failed: {error or type(error).__name__}{logs}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
