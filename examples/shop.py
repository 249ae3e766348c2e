"""Orders of a shop: a task, and the route that enqueues it."""

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from pgqueue_service.api.auth import api_token
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import BEARER, Idempotent, refusals
from pgqueue_service.api.requests import ApiRequest
from pgqueue_service.api.schemas import Strict
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.schemas.responses import Accepted

from pgqueue import Job, task


class Order(msgspec.Struct):
    customer: str
    items: list[str]


@task("shop.order")
async def pack(job: Job[Order]) -> None: ...


class OrderRequest(Strict):  # members are in camelCase; an unknown member is refused with 400
    customer: str
    items: list[str]
    job_id: str | None = None


@post(
    "/api/shop/orders",
    status_code=202,
    guards=[api_token],  # a route without a guard stops the start
    operation_class=Idempotent,  # for the description: it takes the header Idempotency-Key
    responses=refusals(401, 403, 409, 413, 415),
    security=BEARER,
)
async def place_order(
    request: ApiRequest, data: JSONBody[OrderRequest], gateway: NamedDependency[JobGateway]
) -> Accepted:
    """Enqueue an order."""
    payload = {"customer": data.customer, "items": data.items}
    posted = EnqueueRequest(type="shop.order", payload=payload, job_id=data.job_id)
    return await gateway.accept(request, posted, "Order enqueued")


routes = [place_order]
