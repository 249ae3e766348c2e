"""The one map from errors to HTTP: application/problem+json (RFC 9457), with the members that old
callers read."""

import logging
import math
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException

from pgqueue.database.errors import AWAY
from pgqueue.database.reasons import reason
from pgqueue.errors import (
    DuplicatePayload,
    InvalidJob,
    JobNotFound,
    RateLimited,
    SchemaError,
    Unavailable,
    UnknownType,
    WrongState,
)
from pgqueue.masking import mask
from pgqueue_service.text import shown

log = logging.getLogger("pgqueue_service.api.problems")

MEDIA_TYPE = "application/problem+json"
FAILED = "Failed to enqueue job"
LONGEST_SENTENCE = 500
UNAVAILABLE = "The database is not available"
BROKEN = "Internal server error"


class Problem(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The body of every error. `detail`, `error` and `message` are the same sentence; `jobStatus`
    is a job's state."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    message: str
    job_id: str | None = None
    job_status: str | None = None
    retry_after: int | None = None
    index: int | None = None
    error_id: str | None = None


class Refusal(Exception):
    """An answer that is an error: status, sentence, and other members of the problem.

    retry_after: whole seconds. index: of the item in a bulk request. error_id: the log has it
    with the stack trace.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        job_id: str | None = None,
        job_status: str | None = None,
        retry_after: int | None = None,
        index: int | None = None,
        error_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.job_id = job_id
        self.job_status = job_status
        self.retry_after = retry_after
        self.index = index
        self.error_id = error_id
        self.headers = headers or {}

    def problem(self) -> Problem:
        # A sentence may repeat what the caller wrote, and end in the caller's log: one line,
        # without e-mail addresses.
        sentence = shown(mask(self.sentence), LONGEST_SENTENCE)
        return Problem(
            type="about:blank",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=sentence,
            error=sentence,
            message=sentence,
            job_id=self.job_id,
            job_status=self.job_status,
            retry_after=self.retry_after,
            index=self.index,
            error_id=self.error_id,
        )

    def all_headers(self) -> dict[str, str]:
        return (
            self.headers
            if self.retry_after is None
            else {**self.headers, "Retry-After": str(self.retry_after)}
        )


def refusal(error: Exception, failure: str | None = None) -> Refusal:
    """The map. `failure` is the route's sentence for 500 and 503."""
    match error:
        case Refusal():
            return error
        case JobNotFound():
            return Refusal(404, "Job not found", job_id=error.job_id or None)
        case RateLimited():
            return Refusal(
                429,
                f"Too many jobs of type {error.job_type} for this user. Please try again later.",
                retry_after=seconds_to_wait(error),
            )
        case DuplicatePayload():
            return Refusal(409, "Job ID already used with another payload", job_id=error.job_id)
        case WrongState():
            return Refusal(
                409, f"Job is {error.status}", job_id=error.job_id, job_status=error.status
            )
        case UnknownType():
            return Refusal(400, "Unknown job type")
        case InvalidJob():
            return Refusal(400, str(error), index=error.index)
        case HTTPException():
            return _of_the_framework(error)
        case _ if isinstance(error, (SchemaError, Unavailable, *AWAY)):
            return Refusal(503, failure or UNAVAILABLE, retry_after=1)
    return Refusal(500, failure or BROKEN, error_id=uuid4().hex)


def seconds_to_wait(error: RateLimited) -> int:
    """For Retry-After: whole seconds, at least one."""
    return max(1, math.ceil(error.retry_after.total_seconds()))


def ended(job_id: str, status: str) -> Refusal:
    """The refusal of a job that is posted again after its end."""
    sentences = {
        "completed": "Job already processed",
        "dlq": "Job is in the dead-letter queue: replay it to run it again",
        "cancelled": "Job was cancelled: replay it to run it again",
    }
    return Refusal(409, sentences[status], job_id=job_id, job_status=status)


def _of_the_framework(error: HTTPException) -> Refusal:
    sentences = {
        404: "There is no such route: GET /schema lists them",
        405: "This route does not take this method",
        413: "The request body is too large",
    }
    sentence = sentences.get(
        error.status_code, BROKEN if error.status_code >= 500 else error.detail
    )
    headers = {
        name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"
    }
    return Refusal(error.status_code, sentence, headers=headers)


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """The exception handler of the application."""
    handler = request.scope.get("route_handler")
    found = refusal(error, handler.opt.get("failure") if handler else None)
    _log(found, error)
    return Response(
        found.problem(),
        status_code=found.status,
        media_type=MEDIA_TYPE,
        headers=found.all_headers(),
    )


def _log(found: Refusal, error: Exception) -> None:
    if found.status == 503:
        said = reason(error) if isinstance(error, psycopg.Error) else str(error)
        log.warning(
            "answered 503: %s (%s)", said, type(error).__name__, extra={"event": "api.unavailable"}
        )
    elif found.status >= 500:
        log.error(
            "answered %d, error %s",
            found.status,
            found.error_id,
            exc_info=error,
            extra={"event": "api.error", "errorId": found.error_id},
        )
