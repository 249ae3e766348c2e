"""How handlers reach the queue: the client, and the time that a request may take with it."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from litestar import Request

from pgqueue.client import AsyncClient
from pgqueue.database.reasons import reason
from pgqueue.errors import RateLimited, SchemaError, Unavailable, UnknownType
from pgqueue.job import AnyJob, JobView, Status, Ticket
from pgqueue_service.api.address_limit import AddressLimit
from pgqueue_service.api.auth import Access, Level
from pgqueue_service.api.deadlines import Deadlines
from pgqueue_service.api.job_types import JobTypes
from pgqueue_service.api.middleware import ARRIVED
from pgqueue_service.api.problems import FAILED, Refusal, ended, seconds_to_wait
from pgqueue_service.api.readiness import Readiness
from pgqueue_service.api.requests import ApiRequest
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.schemas.responses import Accepted
from pgqueue_service.settings import ServiceSettings

J = TypeVar("J")
T = TypeVar("T")


def longest(settings: ServiceSettings) -> float:
    """Seconds that an operator's request may take: lists and replays of thousands of jobs take
    longer than one job."""
    return max(10.0, 5 * settings.request_timeout.total_seconds())


class JobGateway:
    """The dependency `gateway` of handlers. Built once per application."""

    def __init__(
        self,
        *,
        client: AsyncClient,
        job_types: JobTypes,
        access: Access,
        address_limit: AddressLimit,
        readiness: Readiness,
        deadlines: Deadlines,
        settings: ServiceSettings,
    ) -> None:
        self.client = client
        self.job_types = job_types
        self.access = access
        self._address_limit = address_limit
        self._readiness = readiness
        self._deadlines = deadlines
        # The answer has to be out when the time is over.
        self._soon = min(settings.request_timeout, settings.enqueue_timeout).total_seconds() * 0.95
        self._later = longest(settings)

    def deadline(self, request: Request[Any, Any, Any]) -> float:
        """When the request's PGQUEUE_REQUEST_TIMEOUT is over, by the monotonic clock."""
        return float(request.scope["state"][ARRIVED]) + self._soon

    async def accept(self, request: ApiRequest, posted: EnqueueRequest, message: str) -> Accepted:
        """Enqueue what a caller posted, and answer with that message.

        An administrators' type needs an admin token. Raises Refusal, RateLimited, DuplicatePayload.
        """
        if self.job_types.is_admins(posted.type):
            self.access.demand(request, Level.ADMIN)
        job = self.job_types.job(posted, request.chosen_id(posted.job_id))
        return accepted(await self.enqueue(job, request), message)

    async def accept_from_anyone(
        self, request: ApiRequest, posted: EnqueueRequest, message: str
    ) -> Accepted:
        """The same, for a route that is open without a token: each network address may post only a
        part of what the limit of the type allows to one user. Raises RateLimited too."""
        job = self.job_types.job(posted, request.chosen_id(posted.job_id))
        self._admit(request, posted.type, self.job_types.user_of(job))
        return accepted(await self.enqueue(job, request), message)

    def _admit(self, request: ApiRequest, job_type: str, user_id: str) -> None:
        if (
            self.access.anonymous
            and not self.access.wholly_open
            and (address := self._address_limit.address_of(request.scope))
        ):
            try:
                self._address_limit.count(
                    address,
                    user_id,
                    job_type=job_type,
                    of_user=self.job_types.limit(job_type),
                    processes=self._readiness.processes,
                )
            except RateLimited as error:
                raise self._in_words_of_the_type(error) from None

    async def enqueue(self, job: AnyJob, request: Request[Any, Any, Any]) -> Ticket:
        """Store a job before the request's time is over. After a TimeoutError it may be stored or
        not: posting it again with the same id is safe."""
        return self._worded(
            await self._before(
                self.deadline(request), self._published(self.client.try_enqueue, job)
            )
        )

    async def enqueue_many(
        self, jobs: list[AnyJob], request: Request[Any, Any, Any]
    ) -> list[Ticket]:
        """Store many jobs in one commit, as `enqueue` stores one."""
        tickets = await self._before(
            self.deadline(request), self._published(self.client.enqueue_many, jobs)
        )
        return [self._worded(one) for one in tickets]

    def _worded(self, ticket: Ticket) -> Ticket:
        if not isinstance(ticket.error, RateLimited):
            return ticket
        return msgspec.structs.replace(ticket, error=self._in_words_of_the_type(ticket.error))

    def _in_words_of_the_type(self, error: RateLimited) -> Exception:
        sentence = self.job_types.too_many(error.job_type)
        return Refusal(429, sentence, retry_after=seconds_to_wait(error)) if sentence else error

    async def view(self, job_id: str, request: Request[Any, Any, Any]) -> JobView:
        """The job, if the request may see it. Raises JobNotFound, Refusal."""
        view = await self.soon(self.client.get(job_id))
        if view.job_type in self._readiness.admin_types:
            self.access.demand(request, Level.ADMIN)
        return view

    async def replay(self, job_id: str, payload: Any) -> None:
        """Enqueue a dead job again, with another payload if that is not None. Raises JobNotFound,
        WrongState, Refusal."""
        if payload is not None:
            view = await self.soon(self.client.get(job_id))
            payload = self.job_types.replacement(view.job_type, view.user_id, payload)
        await self.soon(self.client.replay(job_id, payload))

    async def soon(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` within PGQUEUE_REQUEST_TIMEOUT. TimeoutError."""
        return await self._within(self._soon, work)

    async def patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` within the time that an operator's request may take.
        TimeoutError."""
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
            # This process knows the type, so the table job_types is behind: it was never published,
            # or the database is a new one.
            self._readiness.republish()
            raise Refusal(503, FAILED, retry_after=1) from None


def accepted(ticket: Ticket, message: str) -> Accepted:
    """The answer to an enqueued job. Raises the error of the ticket, or Refusal 409 when the job
    has ended."""
    if ticket.error is not None:
        raise ticket.error
    status = ticket.status or Status.ENQUEUED
    if status.ended and not ticket.created:
        raise ended(ticket.job_id, status)
    return Accepted(message, ticket.job_id, status)
