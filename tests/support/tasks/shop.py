"""A task module of an application that brings routes and rules for its payloads."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from pgqueue_service.api.auth import admin_token, api_token
from pgqueue_service.api.gateway import JobGateway
from pgqueue_service.api.openapi import BEARER, Idempotent, refusals
from pgqueue_service.api.payload_rules import JSON, PayloadRules
from pgqueue_service.api.problems import FAILED
from pgqueue_service.api.requests import ApiRequest
from pgqueue_service.api.schemas import Strict, said
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.schemas.responses import Accepted
from pgqueue_service.settings import ServiceSettings

from pgqueue import Job, Limit, task


class Order(msgspec.Struct):
    customer: str
    item: str
    count: int = 1


@task("shop.order", rate_limit=Limit(1, per="1h"), user_from="customer")
async def order(job: Job[Order]) -> None: ...


class OrderRequest(Strict):
    """What a customer orders."""

    customer: Annotated[str, said(maxLength=50)]
    item: str
    how_many: int = 1


@post(
    "/api/shop/orders",
    status_code=202,
    guards=[api_token],
    operation_class=Idempotent,
    responses=refusals(401, 403, 409, 413, 415, 429),
    security=BEARER,
    opt={"failure": FAILED},
)
async def place_order(
    request: ApiRequest, data: JSONBody[OrderRequest], gateway: NamedDependency[JobGateway]
) -> Accepted:
    """Enqueue an order."""
    payload = {"customer": data.customer, "item": data.item, "count": data.how_many}
    posted = EnqueueRequest(type="shop.order", payload=payload)
    return await gateway.accept(request, posted, "Order enqueued")


@post("/api/jobs/shop-order", guards=[api_token], include_in_schema=False)
async def place_order_here(request: ApiRequest) -> Accepted:
    return Accepted("not a job", "none", "none")


class Desk(Controller):
    path = "/api/shop/desk"
    guards = [admin_token]

    @get("/")
    async def look(self) -> dict[str, str]:
        """Show that the desk is staffed."""
        return {"desk": "staffed"}


def fill(sent: JSON, settings: ServiceSettings) -> JSON:
    if not sent.get("item"):
        raise ValueError("An order needs an item")
    return {} if "count" in sent else {"count": 1}


routes: list[Any] = [place_order, place_order_here, Desk]

payload_rules = [
    PayloadRules(
        job_type="shop.order",
        members=("customer", "item", "count"),
        fill=fill,
        make_id=lambda payload: f"order-{payload['customer']}",
        too_many="One order an hour, please.",
    )
]
