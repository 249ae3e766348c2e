"""Enqueues that share a commit: the jobs that arrive while one commit is under way go together in
the next."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pgqueue.database.adapters import Parameters
from pgqueue.database.errors import LOST, sent_before, survived
from pgqueue.enqueue.encoding import document
from pgqueue.enqueue.results import bulk_rows

MAX_GROUP_JOBS = 100

MAX_GROUP_CHARACTERS = 1_000_000
"""Of the payloads of a group."""

STUCK_AFTER_SECONDS = 0.1
"""After that the next group is sent although the one before has not returned: a commit that is
stuck must not hold up all."""

Row = dict[str, Any]
Execute = Callable[[Parameters], Awaitable[tuple[list[Row], bool]]]
Waiting = tuple[Parameters, asyncio.Future[tuple[Row, bool]]]


class GroupCommit:
    """Each caller is answered when its own row is durable. One job alone goes by itself, and at
    once.

    `one` carries out enqueue_job.sql, `group` enqueue_group.sql; both say too whether that may have
    happened twice."""

    def __init__(self, one: Execute, group: Execute) -> None:
        self._one = one
        self._group = group
        self._busy = False
        self._crowded = False
        """Whether the last one to depart was a group: then more are likely to come with the
        next."""
        self._waiting: list[Waiting] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None

    async def offer(self, values: Parameters) -> tuple[Row, bool]:
        """The row of enqueue_job.sql, and whether it may have been carried out twice. Raises what
        `one` raises for it."""
        if not self._busy and not self._crowded:
            self._busy = True
            try:
                rows, repeated = await self._one(values)
                return rows[0], repeated
            finally:
                self._returned()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[Row, bool]] = loop.create_future()
        self._waiting.append((values, answered))
        if self._alarm is None:
            # Nothing under way: at once, but with those whose turn it is now too.
            self._alarm = loop.call_later(STUCK_AFTER_SECONDS if self._busy else 0, self._depart)
        return await answered

    async def close(self) -> None:
        """Lets what is under way arrive."""
        while self._flights or self._waiting:
            self._depart()
            if self._flights:
                await asyncio.wait(self._flights)

    def _returned(self) -> None:
        self._busy = False
        if self._waiting:
            self._depart()

    def _depart(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waiting = [one for one in self._waiting if not one[1].done()]
        count = _fitting(waiting)
        group, self._waiting = waiting[:count], waiting[count:]
        if self._waiting:
            self._alarm = asyncio.get_running_loop().call_later(STUCK_AFTER_SECONDS, self._depart)
        if not group:
            return
        self._busy, self._crowded = True, len(group) > 1
        flight = asyncio.create_task(self._fly(group), name="shared commit")
        self._flights.add(flight)
        flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._returned()

    async def _fly(self, group: list[Waiting]) -> None:
        if len(group) == 1:
            await self._alone(*group[0])
            return
        try:
            rows, repeated = await self._group(document([values for values, _ in group]))
            answers = bulk_rows(rows, [values for values, _ in group])
        except Exception as error:  # noqa: BLE001 - each caller is answered, by an error too
            if not isinstance(error, LOST) or survived(error):
                # One of them cannot be, or not now, and only that one is to hear of it.
                await self._each(group, sent_before(error))
                return
            for _, answered in group:
                if not answered.done():
                    answered.set_exception(error)
        else:
            for (_, answered), row in zip(group, answers, strict=True):
                if not answered.done():
                    answered.set_result((row, repeated))

    async def _each(self, group: list[Waiting], before: bool) -> None:
        await asyncio.gather(*(self._alone(values, answered, before) for values, answered in group))

    async def _alone(
        self, values: Parameters, answered: asyncio.Future[tuple[Row, bool]], before: bool = False
    ) -> None:
        try:
            rows, repeated = await self._one(values)
        except Exception as error:  # noqa: BLE001 - every error is the caller's
            if not answered.done():
                answered.set_exception(error)
        else:
            if not answered.done():
                answered.set_result((rows[0], repeated or before))


def _fitting(waiting: list[Waiting]) -> int:
    """How many of them, in their order, go in one group; the first in any case."""
    load = 0
    for count, (values, _) in enumerate(waiting[:MAX_GROUP_JOBS]):
        load += len(values["payload"])
        if load > MAX_GROUP_CHARACTERS and count:
            return count
    return min(len(waiting), MAX_GROUP_JOBS)
