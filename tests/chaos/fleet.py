"""Worker processes: started with a login of their own each, killed, frozen, stopped, and what they
said."""

import asyncio
import itertools
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.site import Site
from tests.support.processes import ROOT, env
from tests.support.scene import until

LEFT = """SELECT status, locked_by, attempt_count, count(*), max(now() - lease_until),
            max(now() - run_after)
            FROM job_logs WHERE processed_at IS NULL GROUP BY 1, 2, 3"""
HASTEN = """UPDATE job_logs SET run_after = now()
             WHERE processed_at IS NULL AND status <> 'processing' AND run_after > now()"""
SILENT = "SELECT id, now() - seen_at, detail FROM job_workers"

TIMES = {
    "PGQUEUE_MODULES": "tests.chaos.tasks",
    "PGQUEUE_LOG_LEVEL": "warning",
    "PGQUEUE_LEASE": "2s",
}


def now() -> datetime:
    """The clock of this machine, which is the database's too."""
    return datetime.now(UTC)


@dataclass
class Member:
    """One worker process."""

    login: str
    process: asyncio.subprocess.Process
    log: Path
    told: bool = False
    """It was killed or asked to stop."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.returncode is None

    def said(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        found = (
            json.loads(line) for line in self.log.read_text().splitlines() if f'"{event}"' in line
        )
        return [line for line in found if line.get("event") == event]


class Fleet:
    """`members` are those that should be running; `all` also those that are gone."""

    def __init__(
        self,
        site: Site,
        address: str | None,
        arguments: tuple[str, ...],
        environment: dict[str, str],
    ) -> None:
        self.site = site
        self.address = address
        self.arguments = arguments
        self.environment = TIMES | environment
        self.members: list[Member] = []
        self.all: list[Member] = []
        self._numbers = itertools.count(1)

    async def start(self, *arguments: str, ready: bool = True, **environment: str) -> Member:
        """One worker more; when this returns it works, unless it need not be `ready`."""
        login = self.site.login("pgqueue_worker", self.address)
        log = self.site.folder / f"worker-{next(self._numbers)}.log"
        variables = env(login.url, self.site.effects, self.environment | environment)
        command = [sys.executable, "-m", "pgqueue.worker", *(arguments or self.arguments)]
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=variables, stderr=file
            )
        member = Member(login.name, process, log)
        self.members.append(member)
        self.all.append(member)
        if ready:
            await until(
                lambda: not member.runs or self._registered(member.pid), 60, f"{login.name}'s start"
            )
            assert member.runs, log.read_text()
        return member

    def _registered(self, pid: int) -> bool:
        return bool(self.site.rows("SELECT 1 FROM job_workers WHERE pid = %s", pid))

    async def victim(self) -> Member:
        """One at random that is at work, when it is not the only one."""
        working: list[Member] = []

        def enough() -> bool:
            working[:] = [member for member in self.members if self._registered(member.pid)]
            return len(working) > 1

        await until(enough, 60, "two workers at work")
        return random.choice(working)

    async def kill(self, member: Member) -> datetime:
        """SIGKILL; answers when it is gone, and since when."""
        self._dismiss(member)
        member.process.kill()
        moment = now()
        await member.process.wait()
        return moment

    def freeze(self, member: Member) -> None:
        member.process.send_signal(signal.SIGSTOP)

    def thaw(self, member: Member) -> None:
        member.process.send_signal(signal.SIGCONT)

    async def stop(self, member: Member, deadlines: float = 40) -> int:
        """SIGTERM, and its exit code."""
        self._dismiss(member)
        if member.runs:
            member.process.terminate()
        return await asyncio.wait_for(member.process.wait(), deadlines)

    def _dismiss(self, member: Member) -> None:
        member.told = True
        self.members = [one for one in self.members if one is not member]

    async def stop_all(self) -> None:
        """Every one ends with 0."""
        codes = await asyncio.gather(*(self.stop(member) for member in list(self.members)))
        assert set(codes) <= {0}, codes

    async def drained(
        self, seconds: float = 60, *, apart_from: Collection[str] = (), hastened: bool = False
    ) -> None:
        """Until every job has ended; what is left is in the error. `hastened`: what waits for a
        time is due at once."""

        def done() -> bool:
            if hastened:
                self.site.rows(HASTEN)
            return self.site.live(apart_from) == 0

        try:
            await until(done, seconds, "the end of every job")
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {self.site.rows(LEFT)}; workers: {self.site.rows(SILENT)}"
            ) from None

    async def supervise(self) -> None:
        """Starts another for each that ends; until cancelled."""
        while True:
            ends = {asyncio.ensure_future(member.process.wait()): member for member in self.members}
            try:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in ends:
                    one.cancel()
            for one in done:
                self._dismiss(ends[one])
                await self.start(ready=False)

    def fallen(self) -> list[str]:
        """Those that ended without being told, with the end of what they said."""
        return [
            f"{one.login}: {one.log.read_text()[-500:]}"
            for one in self.all
            if not one.runs and not one.told
        ]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for member in self.all for line in member.said(event)]

    def refused(self) -> int:
        """How many writes, extensions included, were refused because the lease was gone."""
        return len(self.said("lease.lost"))


@asynccontextmanager
async def a_fleet(
    site: Site, workers: int = 0, *, slots: int = 20, address: str | None = None, **environment: str
) -> AsyncIterator[Fleet]:
    """So many workers at once. Those that still run at the end are killed."""
    fleet = Fleet(site, address, ("--queue", f"default:{slots}"), environment)
    try:
        await asyncio.gather(*(fleet.start() for _ in range(workers)))
        yield fleet
    finally:
        for member in fleet.all:
            if member.runs:
                member.process.kill()
            await member.process.wait()
