"""What a handler reads from a request: its JSON, its headers, the job id in its path. What cannot
be read is refused here."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException
from litestar.params import PathParameter

from pgqueue.errors import JobNotFound
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.strict_json import decode
from pgqueue_service.notifications.members import identifying

T = TypeVar("T")

NO_OBJECT = "The body must be a JSON object"

LONGEST_JOB_ID = 255

JobId = Annotated[str, PathParameter(name="jobId", description="Percent-encoded, slashes too.")]
"""The segment of the path, still percent-encoded: for `path_id`."""

_LONGEST_NAME = 64
"""Characters of a name that is not known, in the sentence that says so."""

_MISSING = re.compile("Object missing required field `([^`]*)`")


def header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The first header of that name (lower case)."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def read_body(request: Request[Any, Any, Any], *, may_be_empty: bool = False) -> bytes:
    """The body, which says that it is JSON. Refusal 400, 413 or 415."""
    content_type = (
        (header(request.scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    )
    if content_type != b"application/json" and not may_be_empty:
        raise Refusal(415, "Content-Type must be application/json")
    try:
        body = await request.body()
    except InternalServerException:
        raise Refusal(400, "The request ended before its body did") from None
    if content_type != b"application/json" and body:
        raise Refusal(415, "Content-Type must be application/json")
    return body


async def read_json(request: Request[Any, Any, Any], *, may_be_empty: bool = False) -> Any:
    """The body as plain values; an empty object for an empty one where that is allowed. Refusal
    400, 413 or 415."""
    body = await read_body(request, may_be_empty=may_be_empty)
    return {} if may_be_empty and not body else decode(body)


def shaped(value: Any, shape: type[T], what: str = "The body") -> T:
    """The plain values as a struct. Refusal 400 says which member is wrong, or not known where the
    shape takes no others."""
    if not isinstance(value, dict):
        raise Refusal(400, NO_OBJECT if what == "The body" else f"{what} must be a JSON object")
    for name in value:
        known(name, shape)
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise Refusal(400, sentence(error)) from None


def known(name: str, shape: Any) -> None:
    """Refusal 400 when the shape has no such member and takes no others."""
    names = _members(shape)
    if names and name not in names:
        close = get_close_matches(name[:_LONGEST_NAME].lower(), [one.lower() for one in names], 1)
        meant = next((one for one in names if one.lower() in close), None)
        advice = f"did you mean {meant}?" if meant else f"known are {', '.join(names)}"
        raise Refusal(400, f"Unknown member {name[:_LONGEST_NAME]}: {advice}")


@cache
def _members(shape: Any) -> tuple[str, ...]:
    if not shape.__struct_config__.forbid_unknown_fields:
        return ()
    return tuple(field.encode_name for field in msgspec.structs.fields(shape))


def sentence(error: msgspec.ValidationError) -> str:
    """msgspec's message with the member in front."""
    said, at, path = str(error).partition(" - at `$")
    said = _MISSING.sub(r"Missing required field: \1", said)
    member = path.rstrip("`").lstrip(".")
    return f"{member}: {said[:1].lower()}{said[1:]}" if at and member else said


def path_id(raw: str) -> str:
    """The job id of a path segment that is still percent-encoded. What no job can be called, no job
    is called: JobNotFound."""
    try:
        job_id = unquote_to_bytes(raw.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise JobNotFound("") from None
    if not 1 <= len(job_id) <= LONGEST_JOB_ID or "\0" in job_id:
        raise JobNotFound("")
    return job_id


def last_of_path(request: Request[Any, Any, Any]) -> str:
    """The segment for `path_id`, where the route has a word of its own for it: a job may be called
    that too."""
    return request.scope["path"].rstrip("/").rpartition("/")[2]


def path_name(raw: str) -> str:
    """The name of a queue, likewise. Refusal 400."""
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


def chosen_id(request: Request[Any, Any, Any], in_body: str | None) -> str | None:
    """The id that the caller gives the job: the member jobId or the header Idempotency-Key. Refusal
    400."""
    key = header(request.scope, b"idempotency-key")
    try:
        in_header = key.decode("utf-8").strip() if key else None
    except UnicodeError:
        raise Refusal(400, "Idempotency-Key must be UTF-8") from None
    if in_body and in_header and in_body != in_header:
        raise Refusal(400, "jobId and Idempotency-Key are different")
    return valid_id(in_body or in_header)


def valid_id(job_id: str | None) -> str | None:
    """A caller's job id, None when there is none. Refusal 400."""
    try:
        return identifying("jobId", job_id, LONGEST_JOB_ID) if job_id else None
    except ValueError as error:
        raise Refusal(400, str(error)) from None
