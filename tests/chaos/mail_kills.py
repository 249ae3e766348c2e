"""A worker that is killed while it sends a mail, and the one that takes the job over.

A kill is staged: the mail server holds still at its step, and where the step lies in the database,
a lock on the job's row holds the worker's statement. Nothing is left to luck, and nothing is timed.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgqueue_service.notifications import notify_of_sign_in
from pgqueue_service.notifications.mail.mailer import UNCERTAIN
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from tests.support.factories import sql, the_job, value
from tests.support.post_office import Delivered, PostOffice, post_office
from tests.support.processes import a_worker
from tests.support.scene import until

Connection = AsyncConnection[Any]


@dataclass(frozen=True)
class Step:
    """`at` is where the post office stands when the worker is killed, `locks` where it stood when
    the row was locked; `statement` is the link whose statement then waits for the row, and
    `survives` whether it is carried out after its sender's death."""

    at: str
    locks: str = ""
    statement: str = ""
    survives: bool = False


STEPS = {
    "connected": Step("sender"),
    "announced": Step("go on", "data", "writes"),
    "announced, survived": Step("go on", "data", "writes", survives=True),
    "intended": Step("go on"),
    "delivered": Step("taken"),
    "answered": Step("receipted", "taken", "acks"),
    "answered, survived": Step("receipted", "taken", "acks", survives=True),
    "acked": Step("receipted"),
}


@dataclass(frozen=True)
class Kill:
    """What came of one: how many mails were delivered in the end, `before` of them when the worker
    died; how the job ended."""

    step: str
    mode: str
    before: int
    delivered: int
    message_ids: int
    status: str
    error: str | None
    attempts: int

    @property
    def held(self) -> bool:
        return self.status == "dlq" and self.error == UNCERTAIN

    @property
    def pending(self) -> bool:
        return self.status in ("enqueued", "failed", "processing")

    @property
    def missing(self) -> bool:
        """Nobody got it, nobody will, and whoever looks into the dead-letter queue is not told."""
        return self.delivered == 0 and not self.held and not self.pending


class Ambush:
    """Waits at the post office for the worker with one job, and kills it at one step. After it
    everybody may pass."""

    def __init__(
        self,
        name: str,
        job_id: str,
        worker: asyncio.subprocess.Process,
        office: PostOffice,
        look: Connection,
        lock: Connection,
    ) -> None:
        self.name = name
        self.job_id = job_id
        self.address = f"{job_id}@example.com"
        self.over = asyncio.Event()
        self.staged = False
        self.before = 0
        self._step = STEPS[name]
        self._worker = worker
        self._office = office
        self._look = look
        self._lock = lock

    @property
    def mails(self) -> list[Delivered]:
        """Those that came of the job so far."""
        return [mail for mail in self._office.delivered if mail.to == self.address]

    async def doorman(self, at: str, to: str) -> bool:
        if self.over.is_set() or to not in ("", self.address):
            return True
        if at == self._step.locks:
            await sql(
                self._lock, "SELECT 1 FROM job_logs WHERE job_id = %s FOR UPDATE", [self.job_id]
            )
        if at != self._step.at:
            return True
        try:
            await until(self._there)
            await self._strike()
            # A machine that is too slow for a lease of a second may have started a second attempt
            # meanwhile: that is another scene.
            self.staged = (await the_job(self._look, self.job_id))["lease"] == 1
        except AssertionError:
            await self._kill()
        finally:
            await self._lock.rollback()
            self.before = len(self.mails)
            self.over.set()
        return False

    async def _there(self) -> bool:
        """Whether the worker has come as far as the step says."""
        if self._step.statement:
            return bool(await self._waiting())
        if self.name == "intended":
            return await self._intended()
        return self.name != "acked" or await self._completed()

    async def _strike(self) -> None:
        waiting = await self._waiting()
        await self._kill()
        if self._step.survives:
            await self._lock.rollback()
            await until(self._completed if self._step.statement == "acks" else self._intended)
        elif self._step.statement:
            for pid in waiting:
                assert await value(self._look, "SELECT pg_terminate_backend(%s, 10000)", [pid])

    async def _kill(self) -> None:
        if self._worker.returncode is None:
            self._worker.send_signal(signal.SIGKILL)
        await self._worker.wait()

    async def _waiting(self) -> list[int]:
        """The server processes with the worker's statement that wait for us."""
        rows = await sql(
            self._look,
            (
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND %s = ANY "
                "(pg_blocking_pids(pid))"
            ),
            [f"pgqueue {self._step.statement}", self._lock.info.backend_pid],
        )
        return [row["pid"] for row in rows]

    async def _intended(self) -> bool:
        return (await the_job(self._look, self.job_id))["intent_at"] is not None

    async def _completed(self) -> bool:
        return bool((await the_job(self._look, self.job_id))["status"] == "completed")


class Lane:
    """A queue and a post office of their own, and one worker at a time: it takes over the job of
    the one that was killed before it, and is then killed itself."""

    def __init__(
        self,
        name: str,
        mode: str,
        url: str,
        folder: Path,
        tell: Callable[[Kill], None] = lambda kill: None,
    ) -> None:
        self.name = name
        self.mode = mode
        self.url = url
        self.ledger = folder / name
        self.tell = tell
        self.kills: list[Kill] = []
        self.unstaged = 0

    async def run(self, steps: Iterable[str]) -> list[Kill]:
        """A kill for each step, and what came of it. One that could not be staged is made again."""
        todo, number = deque(steps), 0
        left: Ambush | None = None
        async with AsyncExitStack() as stack:
            office = await stack.enter_async_context(post_office())
            client = await stack.enter_async_context(AsyncClient.open(self.url))
            look = await stack.enter_async_context(
                await AsyncConnection.connect(self.url, autocommit=True)
            )
            lock = await stack.enter_async_context(await AsyncConnection.connect(self.url))
            while todo or left:
                async with a_worker(
                    self.url,
                    self.ledger,
                    "--modules",
                    "pgqueue_service.notifications",
                    **self._environment(office),
                ) as worker:
                    if left and not await self._settle(left, look):
                        self.unstaged += 1
                        assert self.unstaged <= 2 + len(self.kills) / 10, (
                            f"the scene of {left.name} does not come about"
                        )
                        todo.append(left.name)
                    left = None
                    if todo:
                        number += 1
                        left = Ambush(
                            todo.popleft(), f"{self.name}-{number}", worker, office, look, lock
                        )
                        office.doorman = left.doorman
                        await self._wait_for(left, client)
        return self.kills

    def _environment(self, office: PostOffice) -> dict[str, str]:
        return {
            "PGQUEUE_QUEUES": f"{self.name}:1",
            "PGQUEUE_AUTO_PRUNE": "off",
            "PGQUEUE_DOUBTFUL_MAIL": self.mode,
            "MAIL_TRANSPORT": "smtp",
            "MAIL_FROM": "no-reply@example.org",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(office.port),
        }

    async def _wait_for(self, ambush: Ambush, client: AsyncClient) -> None:
        payload = {"userId": ambush.job_id, "email": ambush.address, "name": "Болд"}
        await client.enqueue(notify_of_sign_in, payload, job_id=ambush.job_id, queue=self.name)
        await asyncio.wait_for(ambush.over.wait(), 120)

    async def _settle(self, ambush: Ambush, look: Connection) -> bool:
        """The worker that runs now takes the job over. False when that says nothing of the step."""

        async def ended() -> bool:
            return (await the_job(look, ambush.job_id))["processed_at"] is not None

        with suppress(AssertionError):  # then it is counted as pending
            await until(ended, 60)
        row = await the_job(look, ambush.job_id)
        kill = Kill(
            step=ambush.name,
            mode=self.mode,
            before=ambush.before,
            delivered=len(ambush.mails),
            message_ids=len({mail.message_id for mail in ambush.mails}),
            status=row["status"],
            error=row["error"],
            attempts=row["attempt_count"],
        )
        # A third attempt: the post office was too slow for a worker that waits a third of its lease
        # for each word.
        if not kill.missing and (not ambush.staged or kill.attempts > 2):
            return False
        self.kills.append(kill)
        self.tell(kill)
        return True
