"""The description of the HTTP interface (OpenAPI 3.1) and its page, which loads nothing from
another host."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Request, Response, Router, get
from litestar._openapi.schema_generation import SchemaCreator
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityRequirement,
    SecurityScheme,
)
from litestar.params import QueryParameter
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from pgqueue import __version__
from pgqueue_service.api.array_body import ArrayBody
from pgqueue_service.api.problems import MEDIA_TYPE, Problem
from pgqueue_service.api.schemas import LONGEST_ID

BEARER: list[SecurityRequirement] = [{"bearer": []}]

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pgqueue</title>
<link rel="icon" href="data:,">
<script type="module" src="/schema/rapidoc.js"></script>
</head>
<body>
<rapi-doc spec-url="/schema/openapi.json" load-fonts="false" show-header="false" render-style="view"
schema-style="table"
 allow-server-selection="false" theme="light"></rapi-doc>
</body>
</html>
"""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    )
)
_MEANINGS = {
    400: "The request is malformed; `detail` says what is wrong",
    401: "There is no token, or it is unknown",
    403: "The token is not sufficient, or no token is configured",
    404: "No job has this id",
    409: "The state of the job does not allow this (see jobStatus), or the id is in use",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "The user has used up the limit of this job type; see Retry-After",
    500: "Internal error; the log has it under errorId",
    503: "The database did not answer in time; see Retry-After",
}


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems that a route may answer with; every route may answer 400, 500 and 503."""
    return {
        status: ResponseSpec(
            Problem, generate_examples=False, description=_MEANINGS[status], media_type=MEDIA_TYPE
        )
        for status in sorted({400, *statuses, 500, 503})
    }


@dataclass
class Idempotent(Operation):
    """An operation that takes the header Idempotency-Key."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or ()), _IDEMPOTENCY_KEY]


@dataclass
class OptionalBody(Operation):
    """An operation that may have no body."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


class BodySchemas(OpenAPISchemaPlugin):
    """Describes `data` of handlers as msgspec does, which keeps what `said` adds."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return field_definition.name == "data"

    def to_openapi_schema(
        self, field_definition: FieldDefinition, schema_creator: SchemaCreator
    ) -> Schema:
        found = field_definition.annotation
        shape = found.shape if issubclass(found, ArrayBody) else found
        described = msgspec.json.schema(shape)
        if reference := described.pop("$ref", None):
            described = {**described, **described["$defs"].pop(reference.rpartition("/")[2])}
        required = getattr(shape, "required", ())
        if required:
            described["required"] = list(required)
            # Decoding lets null pass, so that there is one sentence for what is missing; the answer
            # to null is that sentence.
            described["properties"] |= {
                name: described["properties"][name]["anyOf"][0] for name in required
            }
        if not described.get("$defs"):
            described.pop("$defs", None)
        return _Ready(described)


def query(name: str, **schema: Any) -> QueryParameter:
    """A query parameter that the handler reads as text or None; `schema` describes its values."""
    return QueryParameter(
        name=name, schema_extra={"one_of": None, "type": OpenAPIType.STRING, **schema}
    )


class _Ready(Schema):
    """A schema that is a document already."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__()
        self._document = document

    def __hash__(self) -> int:
        return id(self)

    def to_schema(self) -> dict[str, Any]:
        return self._document


_IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="The id of the job, for callers that do not send it in the body.",
    schema=_Ready({"type": "string", "maxLength": LONGEST_ID}),
)


class _Page(OpenAPIRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return _PAGE


@cache
def _script() -> bytes:
    return files("pgqueue_service.api.openapi").joinpath("rapidoc.js").read_bytes()


@get("/rapidoc.js", include_in_schema=False, sync_to_thread=False)
def script() -> Response[bytes]:
    """The script of the page: RapiDoc, see rapidoc.LICENSE.txt."""
    return Response(
        _script(), media_type="text/javascript", headers={"Cache-Control": "public, max-age=86400"}
    )


async def _finish(response: Response[Any]) -> Response[Any]:
    if response.status_code == 404:
        raise NotFoundException  # the framework's own is a page, ours is a problem
    if response.media_type == "text/html":
        response.headers["Content-Security-Policy"] = _POLICY
    return response


def configuration() -> OpenAPIConfig:
    """At /schema (the page) and /schema/openapi.json."""
    return OpenAPIConfig(
        title="pgqueue",
        version=__version__,
        description=(
            "Enqueue jobs, get their states, and work on the dead-letter queue. Errors are problem "
            "details (RFC 9457); `error` and `message` repeat `detail`."
        ),
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}
        ),
        render_plugins=[_Page(path="/"), JsonRenderPlugin()],
        openapi_router=Router(
            path="/schema", route_handlers=[script], include_in_schema=False, after_request=_finish
        ),
        use_handler_docstrings=True,
    )
