"""The request as handlers get it: its body decoded strictly, its headers, the job id in its path.
Refusals answer what cannot be read."""

from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from litestar import Request
from litestar.exceptions import InternalServerException
from litestar.params import PathParameter

from pgqueue.errors import JobNotFound
from pgqueue_service.api.array_body import ArrayBody
from pgqueue_service.api.auth import header
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.strict_json import decode
from pgqueue_service.api.structs import shaped
from pgqueue_service.text import LONGEST_JOB_ID, identifying

JobId = Annotated[str, PathParameter(name="jobId", description="Percent-encoded, slashes too.")]
"""The segment of the path, still percent-encoded: for `path_id`."""


OPTIONAL_BODY = {"optional_body": True}
"""The `opt` of a route that may have no body."""


class ApiRequest(Request[Any, Any, Any]):
    """Decodes bodies strictly: `data` of a handler is a struct, or the ArrayBody of a long body.

    Litestar asks it for the body of every handler that takes `data`. Refusal 400, 413 or 415.
    """

    async def body(self) -> bytes:
        """Return the body, which must say that it is JSON. Where the route has OPTIONAL_BODY, no
        body is an empty object."""
        optional = self.route_handler.opt.get("optional_body", False)
        header_value = header(self.scope, b"content-type") or b""
        is_json = header_value.partition(b";")[0].strip().lower() == b"application/json"
        if not is_json and not optional:
            raise Refusal(415, "Content-Type must be application/json")
        try:
            body = await super().body()
        except InternalServerException:
            raise Refusal(400, "The request ended before its body did") from None
        if not body and not optional:
            raise Refusal(400, "The request has no body")
        if body and not is_json:
            raise Refusal(415, "Content-Type must be application/json")
        return body or b"{}"

    async def json(self) -> Any:
        """Return the body as the handler's type of `data`."""
        field = self.route_handler.parsed_data_field
        assert field is not None  # noqa: S101 - for the type checker: Litestar asks only then
        shape = field.annotation
        body = await self.body()
        return shape(body) if issubclass(shape, ArrayBody) else shaped(decode(body), shape)

    def chosen_id(self, in_body: str | None) -> str | None:
        """Return the id that the caller gives the job: the member jobId or the header
        Idempotency-Key. Refusal 400."""
        key = header(self.scope, b"idempotency-key")
        try:
            in_header = key.decode("utf-8").strip() if key else None
        except UnicodeError:
            raise Refusal(400, "Idempotency-Key must be UTF-8") from None
        if in_body and in_header and in_body != in_header:
            raise Refusal(400, "jobId and Idempotency-Key are different")
        return valid_id(in_body or in_header)

    @property
    def last_segment(self) -> str:
        """The last segment of the path, for `path_id`, where the route has a word there: a job may
        have that word as its id."""
        return self.scope["path"].rstrip("/").rpartition("/")[2]


def path_id(raw: str) -> str:
    """The job id of a path segment that is still percent-encoded. Raises JobNotFound for an id that
    cannot exist (empty, too long, NUL, not UTF-8)."""
    try:
        job_id = unquote_to_bytes(raw.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise JobNotFound("") from None
    if not 1 <= len(job_id) <= LONGEST_JOB_ID or "\0" in job_id:
        raise JobNotFound("")
    return job_id


def path_name(raw: str) -> str:
    """The name of a queue, from a path segment that is still percent-encoded. Refusal 400."""
    try:
        return identifying(
            "The name of a queue",
            unquote_to_bytes(raw.encode("latin-1")).decode("utf-8"),
            LONGEST_JOB_ID,
        )
    except UnicodeError:
        raise Refusal(400, "The name of a queue must be UTF-8") from None
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def valid_id(job_id: str | None) -> str | None:
    """A caller's job id, None when there is none. Refusal 400."""
    try:
        return identifying("jobId", job_id, LONGEST_JOB_ID) if job_id else None
    except ValueError as error:
        raise Refusal(400, str(error)) from None
