"""Where jobs are handed in: the client, and the time that a request may take with it."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from litestar import Request

from pgqueue.client import AsyncClient
from pgqueue.database.reasons import reason
from pgqueue.errors import SchemaError, Unavailable, UnknownType
from pgqueue.job import AnyJob, JobView, Status, Ticket
from pgqueue_service.api.address_limit import Addresses
from pgqueue_service.api.auth import Access, Level
from pgqueue_service.api.catalog import Catalog
from pgqueue_service.api.deadlines import Deadlines
from pgqueue_service.api.middleware import ARRIVED
from pgqueue_service.api.problems import FAILED, Refusal, ended
from pgqueue_service.api.readiness import Readiness
from pgqueue_service.api.responses import Accepted
from pgqueue_service.settings import ServiceSettings

J = TypeVar("J")
T = TypeVar("T")


def longest(settings: ServiceSettings) -> float:
    """Seconds that an operator's request may take: lists and replays of thousands of jobs take
    longer than one job."""
    return max(10.0, 5 * settings.request_timeout.total_seconds())


class JobGateway:
    """What the handlers work with. Built once per application."""

    def __init__(
        self,
        client: AsyncClient,
        catalog: Catalog,
        access: Access,
        addresses: Addresses,
        readiness: Readiness,
        deadlines: Deadlines,
        settings: ServiceSettings,
    ) -> None:
        self.client = client
        self.catalog = catalog
        self.access = access
        self._addresses = addresses
        self._readiness = readiness
        self._deadlines = deadlines
        # The answer has to be out when the time is over.
        self._soon = min(settings.request_timeout, settings.enqueue_timeout).total_seconds() * 0.95
        self._later = longest(settings)

    def deadline(self, request: Request[Any, Any, Any]) -> float:
        """When the request's PGQUEUE_REQUEST_TIMEOUT is over, by the monotonic clock."""
        return float(request.scope["state"][ARRIVED]) + self._soon

    def admit(self, request: Request[Any, Any, Any], user_id: str) -> None:
        """Counts a sign-in that comes without a token against its network address. Raises
        RateLimited."""
        if (
            self.access.anonymous
            and not self.access.wholly_open
            and (address := self._addresses.of(request.scope))
        ):
            self._addresses.count(address, user_id, self._readiness.processes)

    async def offer(self, job: AnyJob, request: Request[Any, Any, Any]) -> Ticket:
        """Stores a job before the request's time is over. TimeoutError: it may be stored or not;
        the same id tells."""
        return await self._before(
            self.deadline(request), self._published(self.client.try_enqueue, job)
        )

    async def offer_all(self, jobs: list[AnyJob], request: Request[Any, Any, Any]) -> list[Ticket]:
        """The same for many, in one commit."""
        return await self._before(
            self.deadline(request), self._published(self.client.enqueue_many, jobs)
        )

    async def view(self, job_id: str, request: Request[Any, Any, Any]) -> JobView:
        """The job, if the request may see it. Raises JobNotFound, Refusal."""
        view = await self.soon(self.client.get(job_id))
        if view.job_type in self._readiness.admin_types:
            self.access.demand(request, Level.ADMIN)
        return view

    async def replay(self, job_id: str, payload: Any) -> None:
        """Sends a dead job back, with another payload if that is not None. Raises JobNotFound,
        WrongState, Refusal."""
        if payload is not None:
            view = await self.soon(self.client.get(job_id))
            payload = self.catalog.replacement(view.job_type, view.user_id, payload)
        await self.soon(self.client.replay(job_id, payload))

    async def soon(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` within PGQUEUE_REQUEST_TIMEOUT. TimeoutError."""
        return await self._within(self._soon, work)

    async def patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """The same with the patience of an operator."""
        return await self._within(self._later, work)

    async def _before(self, deadline: float, work: Coroutine[Any, Any, T]) -> T:
        left = deadline - time.monotonic()
        if left <= 0:
            work.close()
            raise TimeoutError("the request's time was over before the database was asked")
        return await self._within(left, work)

    async def _within(self, limit: float, work: Coroutine[Any, Any, T]) -> T:
        if self._readiness.unusable:
            work.close()
            raise SchemaError(self._readiness.problem)
        try:
            return await self._deadlines.within(limit, work)
        except TimeoutError as error:
            if (trouble := self._readiness.trouble) is None:
                raise
            raise Unavailable(reason(trouble)) from error

    async def _published(self, offer: Callable[[J], Awaitable[T]], jobs: J) -> T:
        try:
            return await offer(jobs)
        except UnknownType:
            # The catalog knows the type, so it is the table that is behind: never published, or a
            # new database.
            self._readiness.republish()
            raise Refusal(503, FAILED, retry_after=1) from None


def accepted(ticket: Ticket, message: str) -> Accepted:
    """The answer to a job that was handed in. Raises what refuses it."""
    if ticket.error is not None:
        raise ticket.error
    status = ticket.status or Status.ENQUEUED
    if status.ended and not ticket.created:
        raise ended(ticket.job_id, status)
    return Accepted(message, ticket.job_id, status)
