"""The service's application, answering without a database: the same routes, checks and answers, and
jobs that go nowhere."""

from typing import Any
from uuid import uuid4

from litestar import Litestar
from pgqueue_service.app import create_app as create_real_app
from pgqueue_service.settings import ServiceSettings

from pgqueue.job import AnyJob, Status, Ticket


def create_app(settings: ServiceSettings) -> Litestar:
    """For PGQUEUE_APP."""
    app = create_real_app(settings)
    app.state.gateway.client.try_enqueue = taken
    return app


async def taken(job: AnyJob, *, connection: Any = None) -> Ticket:
    return Ticket(job.job_id or f"{job.task}-{uuid4()}", Status.ENQUEUED, True)
